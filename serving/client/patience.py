"""Asking a busy server again, as long work must: a full queue is no reason to give up after an hour of embedding."""

import time
from collections.abc import Callable
from typing import TypeVar

from serving.client.errors import ServerError

_ATTEMPTS = 6
_FIRST_PAUSE = 0.25  # seconds, doubled each time
Reply = TypeVar("Reply")


def patiently(ask: Callable[[], Reply]) -> Reply:
    """What `ask` returns; asked again, after longer and longer pauses, while its `ServerError` says `again`."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return ask()
        except ServerError as error:
            if not error.again:
                raise
        time.sleep(_FIRST_PAUSE * 2**attempt)
    return ask()
