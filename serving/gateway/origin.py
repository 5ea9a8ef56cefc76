"""What logs, replies and traces call a request: `x-request-id`, which a client or a proxy may choose."""

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass

REQUEST_ID = "x-request-id"
_LONGEST = 128  # characters


@dataclass(frozen=True, slots=True)
class Origin:
    """A request's id, and the span that covers it as W3C's `traceparent`, empty where no traces are written."""

    id: str = ""
    traceparent: str = ""

    def __str__(self) -> str:
        return f"{self.id} {self.traceparent}".strip() or "-"


_PROCESS = os.urandom(10).hex()
_NUMBERS = itertools.count(int.from_bytes(os.urandom(4), "big"))
NOWHERE = Origin()  # of what the gateway itself asks


def request_id(headers: Mapping[str, str]) -> str:
    """The client's, if it is of at most 128 characters of printable ASCII, else a new one, unlike any other."""
    given = headers.get(REQUEST_ID)
    if given and len(given) <= _LONGEST and given.isascii() and given.isprintable():
        return given
    return f"{_PROCESS}{next(_NUMBERS):012x}"
