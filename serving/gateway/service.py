"""What an endpoint may ask of the gateway that it is part of."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from serving.gateway.call import Call
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request
from serving.protocol.wire import Reply


class Service(Protocol):
    """The gateway, as its endpoints see it."""

    async def ask(self, call: Call, request: Request) -> Answer | RequestError:
        """A worker's answer to a request, which waits in the line of its caller.

        Raises `RequestError` 403 if the caller may not have what is asked, whichever address it was asked at.
        """

    async def about(self) -> Mapping[str, Any]:
        """What is being served, as `describe` says it; up to a second old. Raises `RequestError`."""


Endpoint = Callable[[Service, Call], Awaitable[Reply]]
