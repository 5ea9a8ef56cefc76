"""The gateway as an ASGI application: a request finds its route, is admitted, becomes typed, waits, and is answered."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from serving.gateway.access.gate import Gate
from serving.gateway.bodies import Bodies
from serving.gateway.call import Call, Receive, Scope
from serving.gateway.dispatcher import Dispatcher
from serving.gateway.metrics import CLIENT_GONE, Metrics
from serving.gateway.origin import REQUEST_ID
from serving.gateway.routes import COLLECTION, NotAllowed, Route, Table
from serving.gateway.service import NOBODY_ELSE, Observer, Observers
from serving.gateway.turning_away import brings_images, pass_over
from serving.protocol.agreed import DEFAULT_COLLECTION
from serving.protocol.messages import Answer, Failure, RequestError
from serving.protocol.operations import DescribeRequest, Request, operation_of
from serving.protocol.wire import Reply, encode_error

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LOOK_SECONDS = 0.1
_ABOUT_SECONDS = 1.0
_CHUNK = 256 << 10  # bytes of a reply that are sent at once; longer ones share the room of large bodies
_REQUEST_ID = REQUEST_ID.encode()
# No browser guesses another type, nor lets another site's page have a reply that did not name it (by CORS).
_NO_GUESSING = "x-content-type-options"
_FOR_BROWSERS = ((_NO_GUESSING.encode(), b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))
_LOG = logging.getLogger(__name__)


class Gateway:
    """Answers HTTP; `start` it in the event loop that serves it, and `close` it there.

    `observers` are told of every request, after its metrics.
    """

    def __init__(
        self, dispatcher: Dispatcher, routes: Iterable[Route], *, gate: Gate, observers: Observers = NOBODY_ELSE
    ) -> None:
        self.dispatcher = dispatcher
        self._gate = gate
        self.table = Table(routes)
        self.bodies = Bodies()
        self.metrics = Metrics(dispatcher, self.bodies)
        self._trace = observers.trace
        self._observers: tuple[Observer, ...] = (self.metrics, *observers.replied)
        self._calls: set[Call] = set()
        self._about: tuple[float, Mapping[str, Any]] | None = None
        self._asking: asyncio.Task[RequestError | None] | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """How many requests are not answered yet, or whose answer was not taken yet."""
        return len(self._calls)

    async def start(self) -> None:
        """Begin to look after the requests that take long."""
        self._looking = asyncio.create_task(self._look_after_all())

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._looking is not None:
            self._looking.cancel()
        await self.dispatcher.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI calls it."""
        if scope["type"] != "http":
            return
        call = Call(scope, receive, self.bodies)
        if self._trace is not None:
            call.traceparent = self._trace(call)
        self._calls.add(call)
        try:
            if (reply := await self._answered(call)) is not None:
                await _send(reply, send, call)
            self._tell(call, reply)
        finally:
            self._calls.discard(call)
            call.close()

    async def ask(self, call: Call, request: Request) -> Answer | RequestError:
        """A worker's answer to a request, which waits in the line of its caller.

        Raises `RequestError` 403 if the caller may not have what is asked, whichever address it was asked at.
        """
        if refusal := call.caller.refusal(operation_of(request).scope, _collection_of(request, call)):
            raise refusal
        call.operation = request.op
        return await self.dispatcher.answer(request, caller=call.caller.name, origin=call.origin)

    async def about(self) -> Mapping[str, Any]:
        """What is being served, as `describe` says it; up to a second old. Raises `RequestError`."""
        now = time.monotonic()
        if self._about is None or now - self._about[0] > _ABOUT_SECONDS:
            self._asking = self._asking or asyncio.create_task(self._ask_about())  # one question for all who want it
            if (error := await asyncio.shield(self._asking)) is not None:
                raise error
        assert self._about is not None, "it was asked for"
        return self._about[1]

    async def _ask_about(self) -> RequestError | None:
        try:
            answer = await self.dispatcher.answer(DescribeRequest())
        finally:
            self._asking = None
        if isinstance(answer, RequestError):
            return answer
        self._about = (time.monotonic(), {"release": answer.release, **answer.more})
        return None

    async def _answered(self, call: Call) -> Reply | None:
        """The reply, also where the call was given up meanwhile; None if nobody is there to take one."""
        try:
            reply = await self._reply(call)
            if reply is not None and len(reply.body) > _CHUNK:
                await call.hold_reply(len(reply.body))
            return reply
        except RequestError as error:
            return encode_error(error)
        except asyncio.CancelledError:
            if call.failure is None and not call.gone:
                raise
            return encode_error(call.failure) if call.failure is not None else None

    async def _reply(self, call: Call) -> Reply | None:
        refuse: Callable[[Failure], Reply] = encode_error
        try:
            route, call.params = self.table.find(call.method, _path_of(call.scope))
            refuse, call.route = route.refuse, route.path
            call.caller = self._gate.admit(
                call.scope["headers"],
                method=call.method,
                scope=route.scope,
                collection=call.params.get(COLLECTION),
            )
            if brings_images(call) and (refusal := self.dispatcher.overload(1)) is not None:
                await pass_over(call)
                raise refusal
            return await route.endpoint(self, call)
        except NotAllowed as error:
            return _allowed(error, asked=call.method == "OPTIONS")
        except RequestError as error:
            return refuse(error)
        except ConnectionResetError:
            return None
        except Exception as error:
            _LOG.exception("%s %s failed (request %s)", call.method, call.scope["path"], call.origin)
            return refuse(RequestError(f"internal error: {type(error).__name__}", 500))

    def _tell(self, call: Call, reply: Reply | None) -> None:
        seconds = time.monotonic() - call.since
        status, size = (CLIENT_GONE, 0) if reply is None else (reply.status, len(reply.body))
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _LOG.error("%s %s was answered with 500 (request %s)", call.method, call.scope["path"], call.origin)
        for observer in self._observers:
            observer.replied(call, status, size, seconds)

    async def _look_after_all(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for call in [*self._calls]:
                call.look_after(time.monotonic())


def _collection_of(request: Request, call: Call) -> str | None:
    """The collection that an operation is about, which its path may leave unsaid; None if it is about none."""
    if operation_of(request).needs_collection or "vote" in request.included:
        return call.params.get(COLLECTION, DEFAULT_COLLECTION)
    return None


def _allowed(error: NotAllowed, *, asked: bool) -> Reply:
    """Which methods a path answers: an error, unless that was `asked`."""
    headers = {"allow": ", ".join(error.allowed)}
    return Reply(204, b"", headers=headers) if asked else replace(encode_error(error), headers=headers)


def _path_of(scope: Scope) -> str:
    """The path as it was sent: a percent-encoded slash is part of a segment."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("latin-1")


async def _send(reply: Reply, send: Send, call: Call) -> None:
    headers = [(_REQUEST_ID, call.id.encode()), *_FOR_BROWSERS]
    if reply.status != HTTPStatus.NO_CONTENT:  # then neither may be there (RFC 9110, section 8.6)
        headers.append((b"content-type", reply.content_type.encode()))
        headers.append((b"content-length", b"%d" % len(reply.body)))
    headers += [(name.encode(), value.encode()) for name, value in reply.headers.items() if name != _NO_GUESSING]
    if not call.read and call.method not in ("GET", "HEAD"):  # what is left of the body is no next request
        headers.append((b"connection", b"close"))
    with suppress(OSError):  # the client has gone
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for at in range(0, len(reply.body) - _CHUNK, _CHUNK):  # each waits until most of the one before was taken
            await send({"type": "http.response.body", "body": reply.body[at : at + _CHUNK], "more_body": True})
        await send({"type": "http.response.body", "body": reply.body[(len(reply.body) - 1) // _CHUNK * _CHUNK :]})
