"""A trivial HTTP server in a process of its own: any request gets the same reply, with next to no work.

What the load generator reaches against it is the least that it can send. Started by `benchmarks.serving.load_limit`.
"""

import asyncio
from typing import Any

from benchmarks.tools.child import hear_parent, tell_parent


class Echo(asyncio.Protocol):
    """Answers a request once its head and a body of content-length bytes are there."""

    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._data = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whatever is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            length = int(self._data[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            whole = end + 4 + length
            if len(self._data) < whole:
                return
            self._data = self._data[whole:]
            self._transport.write(self._reply)


async def serve(body: int) -> None:
    """Serve replies with `body` bytes until this process is ended."""
    reply = f"HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n".encode() + b"x" * body
    server = await asyncio.get_running_loop().create_server(lambda: Echo(reply), "127.0.0.1", 0)
    tell_parent({"port": server.sockets[0].getsockname()[1]})
    await asyncio.to_thread(hear_parent)


if __name__ == "__main__":
    order = hear_parent()
    assert order is not None
    asyncio.run(serve(order[0]["body"]))
