"""What logs, replies and traces call a request: `x-request-id`, which a client or a proxy may choose."""

import os
from collections.abc import Mapping

REQUEST_ID = "x-request-id"
_LONGEST = 128  # characters


def request_id(headers: Mapping[str, str]) -> str:
    """The client's, if it is of at most 128 characters of printable ASCII, else a new one of 128 random bits."""
    given = headers.get(REQUEST_ID)
    if given and len(given) <= _LONGEST and given.isascii() and given.isprintable():
        return given
    return os.urandom(16).hex()
