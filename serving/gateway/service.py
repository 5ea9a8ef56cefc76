"""What an endpoint may ask of the gateway that it is part of."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serving.gateway.call import Call
from serving.gateway.metrics import Metrics
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request
from serving.protocol.wire import Reply


class Service(Protocol):
    """The gateway, as its endpoints see it."""

    @property
    def metrics(self) -> Metrics:
        """What the gateway measures."""

    async def ask(self, call: Call, request: Request) -> Answer | RequestError:
        """A worker's answer to a request, which waits in the line of its caller.

        Raises `RequestError` 403 if the caller may not have what is asked, whichever address it was asked at.
        """

    async def about(self) -> Mapping[str, Any]:
        """What is being served, as `describe` says it; up to a second old. Raises `RequestError`."""


class Observer(Protocol):
    """Who is told of every request that was answered."""

    def replied(self, call: Call, status: int, size: int, seconds: float) -> None:
        """`status` and a body of `size` bytes were sent, so many seconds after the request's head had come."""


@dataclass(frozen=True)
class Observers:
    """Who is told: `trace` when a request came, and says its `traceparent`; `replied` when they were answered."""

    replied: Sequence[Observer] = ()
    trace: Callable[[Call], str] | None = None


NOBODY_ELSE = Observers()
Endpoint = Callable[[Service, Call], Awaitable[Reply]]
