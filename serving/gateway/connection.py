"""A connection as uvicorn keeps it, with bounds on how slowly a client may send a request's head or read a reply."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_REPLY = b"HTTP/1.1 "
_CONTINUE = b"HTTP/1.1 100 "
_HEAD_SECONDS = 10.0
_HEAD_BYTES = 64 << 10
_READ_SECONDS, _READ_BYTES = 10.0, 160 << 10  # a reply that goes more slowly is given up


class Joined:
    """A transport that sends the head of a reply together with what follows it: a call of the kernel less a request."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Keep a head until its body is there; uvicorn writes that next."""
        if not self._head and data.startswith(_REPLY) and not data.startswith(_CONTINUE):
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        """Send what was kept, and close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """What uvicorn calls for everything that happens on a connection."""

    def connection_made(self, transport: Any) -> None:
        """Expect the first head from now on."""
        self._joined = Joined(transport)
        super().connection_made(self._joined)  # type: ignore[arg-type]
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._head_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head is longer than any that is meant well."""
        if self._head is not None:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES and not self._ends_head(data):
                self.transport.abort()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Expect the whole head soon."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._head_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """The reply is written."""
        self._joined.flush()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: look whether it reads at all."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """The client has read what was written."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _expect_head(self) -> None:
        if self._head is None:
            self._head_bytes = 0
            self._head = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            self.transport.close()

    def _ends_head(self, data: bytes) -> bool:
        """Whether what came has the end of the head: then a body follows, which may be long."""
        return b"\r\n\r\n" in data

    def _look_again(self) -> None:
        if self._reading is None:
            left = self.transport.get_write_buffer_size()
            self._reading = self.loop.call_later(_READ_SECONDS, self._give_up_reading, left)

    def _give_up_reading(self, before: int) -> None:
        self._reading = None
        if self.transport.get_write_buffer_size() > before - _READ_BYTES:
            self.transport.abort()
        else:
            self._look_again()
