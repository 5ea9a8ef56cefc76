"""An image file as a text of JSON: base64, or a data URI. An address is refused: nothing is ever fetched."""

import base64
import binascii
import re

from serving.protocol.messages import RequestError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def image_of(text: str, what: str) -> bytes:
    """The bytes of the image file; raises `RequestError`, which calls the text `what`."""
    if (text := text.lstrip()).startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{what} is a data URI without ';base64,'")
    elif _ADDRESS.match(text):
        raise RequestError(f"{what} is {text!r:.80}, an address, and none is fetched: send the image itself, in base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # many write line breaks into it
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{what} is not valid base64: {error}") from error
