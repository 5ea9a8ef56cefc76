"""One HTTP request at the gateway: what its head says, its body once somebody wants it, and if its client is there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from serving.gateway.access.callers import NOBODY, Caller
from serving.gateway.bodies import Bodies, is_form, multipart_boundary, parts_of
from serving.gateway.origin import Origin, request_id
from serving.gateway.room import Held
from serving.protocol.media_types import JSON
from serving.protocol.messages import RequestError
from serving.protocol.parts import BODY, MAX_FIELDS, Part

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_GRACE_SECONDS, _BYTES_PER_SECOND = 5.0, 16 << 10  # slower bodies are given up, and those that stop for as long
_WATCH_SECONDS = 0.3  # a client is watched only if its answer takes longer than this


class Call:
    """A request as ASGI brings it; `params` are the parts of the path that its route names.

    `since` is when its head came, in seconds of the monotonic clock; `came` counts the bytes of its body, as sent.
    """

    def __init__(self, scope: Scope, receive: Receive, bodies: Bodies) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.route = ""  # the path with names in braces, as its table has it, once it is found there
        self.params: Mapping[str, str] = {}
        self.operation = ""  # which one was asked for, once that is known
        self.traceparent = ""  # of its span, if traces are written
        self.span: Any = None
        self.caller: Caller = NOBODY
        self.failure: RequestError | None = None  # why it was given up
        self.gone = False  # whether its client went away
        self.read = False  # whether the whole body has come
        self._receive = receive
        self._bodies = bodies
        self._held = Held()
        self._task = asyncio.current_task()
        self.since = time.monotonic()
        self.came = 0
        self._reading = False
        self._body_since = self._came_at = self.since
        self._body: bytes | None = None
        self._watcher: asyncio.Task[None] | None = None

    @cached_property
    def headers(self) -> dict[str, str]:
        """By name in lower case; where a name repeats, the values with commas between them (RFC 9110, 5.3)."""
        found: dict[str, str] = {}
        for name, value in self.scope["headers"]:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    @cached_property
    def id(self) -> str:
        """What it is called in its reply, in logs and in traces."""
        return request_id(self.headers)

    @property
    def origin(self) -> Origin:
        """What the frames that have it say of it."""
        return Origin(self.id, self.traceparent)

    @cached_property
    def query(self) -> Sequence[tuple[str, str]]:
        """The query's pairs in their order."""
        text = self.scope["query_string"].decode("latin-1")
        return _pairs(text) if text else ()

    async def body(self) -> bytes:
        """The whole body, without its content encoding. Raises `RequestError` as `Bodies.read` does."""
        if self._body is None:
            self._reading = True
            self._body_since = self._came_at = time.monotonic()
            self._body = await self._bodies.read(self.headers, self._receive, self._held, progress=self._progress)
            self._reading, self.read = False, True
        return self._body

    async def parts(self) -> Sequence[Part]:
        """The parts of a form, or the body as the only one; none where it is empty."""
        content = await self.body()
        kind = self.headers.get("content-type")
        if (boundary := multipart_boundary(kind)) is not None:
            return parts_of(content, boundary)
        if kind is None or is_form(kind):  # curl calls whatever it sends a form
            if content.lstrip()[:1] == b"{":  # as no image file begins
                return [Part(BODY, content, JSON)]
            if kind is not None and content.isascii() and b"\n" not in content:
                return [Part(name, value.encode()) for name, value in _pairs(content.decode())]
        return [Part(BODY, content, kind)] if content else []

    async def hold_reply(self, size: int) -> None:
        """Take the memory of a large reply until it is sent; raises `RequestError` if there is none."""
        self._held.release()
        await self._held.take(self._bodies.large, size)

    def look_after(self, now: float) -> None:
        """To be called now and then: gives a slow body up, and notices if the client of a long request has gone."""
        age = now - self.since
        if self._reading:
            if self._held.waiting:  # for us, not for its client
                self._came_at = now
                self._body_since = self._body_since if self.came else now
            elif self._too_slow(now):
                self.failure = RequestError(f"the body comes too slowly: {self.came} bytes in {age:.0f} s", 408)
                self._cancel()
        elif self.read and self._watcher is None and age > _WATCH_SECONDS:
            self._watcher = asyncio.create_task(self._until_gone())

    def close(self) -> None:
        """Give back what the body took, and look for the client no more."""
        self._held.release()
        if self._watcher is not None:
            self._watcher.cancel()

    def _progress(self, came: int) -> None:
        self.came, self._came_at = came, time.monotonic()

    def _too_slow(self, now: float) -> bool:
        """Whether the body comes too slowly, or has stopped: a large one that had come half held its room for long."""
        over = now - self._body_since - _GRACE_SECONDS
        return self.came < over * _BYTES_PER_SECOND or now - self._came_at > _GRACE_SECONDS

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise RequestError(f"more fields than may be in one request: at most {MAX_FIELDS}", 413) from error
