"""One keep-alive connection of a load generator: asyncio's raw protocol, which writes bytes that were built beforehand.

No HTTP library and no copies: the generator shares the machine with the server that it measures.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.serving.replies import ReplyReader

NO_REPLY = 0  # the "status" of a request whose connection broke, or that was not answered in time


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way; `started` is what its latency counts from."""

    def __init__(self, finished: Callable[["Connection", int], None]) -> None:
        self._finished = finished
        self._reader = ReplyReader()
        self._transport: Any = None
        self.busy = False
        self.usable = True
        self.started = 0.0

    def send(self, request: bytes, started: float) -> None:
        """Send one request."""
        self.busy, self.started = True, started
        self._transport.write(request)

    def close(self) -> None:
        """Break the connection without another word."""
        self._finished = lambda connection, status: None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on in the reply."""
        try:
            status = self._reader.feed(data)
        except ValueError as error:
            print(f"a reply can't be read: {error}", file=sys.stderr)
            self._transport.abort()  # which ends in `connection_lost`
            return
        if status is not None:
            self.busy = False
            self.usable = self._reader.keep_alive
            self._finished(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        """A request on its way has no reply any more."""
        self.usable = False
        if self.busy:
            self.busy = False
            self._finished(self, NO_REPLY)
