"""How long a client goes on asking a server that is busy: after the pause that it names, up to some seconds in all."""

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx

PATIENCE = 10.0  # seconds of pauses in all, for one call
_FIRST_PAUSE = 0.25  # where the server names none; doubled each time


class Patience:
    """What is left of a call's `seconds` of pauses."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._next = _FIRST_PAUSE

    def pause(self, asked: float | None = None) -> float | None:
        """How long to wait before the call is sent again, `asked` seconds if that is known; None to give up."""
        seconds = self._next if asked is None else max(asked, _FIRST_PAUSE)
        self._next *= 2
        if seconds > self._left:
            return None
        self._left -= seconds
        return seconds


def retry_after(reply: httpx.Response) -> float | None:
    """In how many seconds the server wants to be asked again; None if it does not say (RFC 9110, 10.2.3)."""
    text = reply.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time())
