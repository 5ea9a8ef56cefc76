"""A line of waiting requests that is fair among callers: each caller's turn brings one of its requests."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from serving.gateway.origin import NOWHERE, Origin
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request, operation_of

_IMAGE_REPLY = 8 << 10  # bytes: an embedding of 2,048 numbers
_ITEM_REPLY = 32 << 10  # with a vector or a small picture
_PLAIN_REPLY = 256
_PICTURE_REPLY = 1 << 20  # nobody knows here; it keeps two of them from travelling together


@dataclass(eq=False)
class Waiting:
    """A request that waits for its answer; `since` is when it came, in seconds of the monotonic clock.

    `origin` is what logs and traces call it.
    """

    request: Request
    caller: str
    since: float
    future: "asyncio.Future[Answer | RequestError]"
    origin: Origin = NOWHERE
    attempts: int = 0
    images: int = field(init=False)
    size: int = field(init=False)
    reply: int = field(init=False)

    def __post_init__(self) -> None:
        files = self.request.files
        self.images = len(files)
        self.size = sum(map(len, files))
        self.reply = _reply_bytes(self.request, len(files))

    @property
    def changes(self) -> bool:
        """Whether to do it twice may answer differently from doing it once."""
        return operation_of(self.request).changes

    def settle(self, answer: Answer | RequestError) -> None:
        """Answer it, unless whoever asked has gone."""
        if not self.future.done():
            self.future.set_result(answer)


class Lane:
    """Requests in line; those whose caller has gone leave it when their turn comes."""

    def __init__(self) -> None:
        self._callers: dict[str, deque[Waiting]] = {}  # the first caller's turn is next
        self.requests = 0
        self.images = 0
        self.size = 0

    def push(self, one: Waiting) -> None:
        """Put a request at the end of its caller's."""
        self._callers.setdefault(one.caller, deque()).append(one)
        self._count(one, 1)

    def push_back(self, one: Waiting) -> None:
        """Put a request that was taken at the beginning of its caller's, and give the caller the next turn."""
        waiting = self._callers.pop(one.caller, deque())
        waiting.appendleft(one)
        self._callers = {one.caller: waiting, **self._callers}
        self._count(one, 1)

    def pop(self) -> Waiting | None:
        """The next request that somebody still waits for; None where there is none."""
        while self._callers:
            caller = next(iter(self._callers))
            waiting = self._callers.pop(caller)
            one = waiting.popleft()
            if waiting:
                self._callers[caller] = waiting  # at the end
            self._count(one, -1)
            if not one.future.done():
                return one
        return None

    def __len__(self) -> int:
        return self.requests

    def _count(self, one: Waiting, sign: int) -> None:
        self.requests += sign
        self.images += sign * one.images
        self.size += sign * one.size


def _reply_bytes(request: Request, images: int) -> int:
    """About how long the answer will be in a frame."""
    results = images
    for name in ("ids", "limit", "count", "vectors", "positives"):
        value = getattr(request, name, 0)
        results += value if isinstance(value, int) else len(value)
    heavy = not request.included.isdisjoint(("vector", "thumbnail", "image"))
    results *= getattr(request, "k", 1)
    if "image" in request.included:
        return results * _PICTURE_REPLY
    return images * _IMAGE_REPLY + results * (_ITEM_REPLY if heavy else _PLAIN_REPLY)
