"""An image file that stands in a JSON text: base64, or a data URI. Nothing is ever fetched."""

import base64
import binascii
import re

from serving.protocol.messages import RequestError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def image_of(text: str, what: str) -> bytes:
    """The bytes of the image file; raises `RequestError`, which calls the text `what`."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{what} is a data URI without ';base64,'")
    elif _ADDRESS.match(text):
        raise RequestError(
            f"{what} is an address ({text!r:.80}); no address is fetched: send the image itself, in base64"
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{what} is no image in base64 ({error}); a data URI or bare base64 is accepted") from error
