"""A small HTTP server of our own in a thread: what it does with each request is scripted, and it keeps count."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

Script = Callable[[int], bytes]


def reply(status: int = 200, body: bytes = b"ok", *, headers: str = "") -> bytes:
    """A whole reply."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def stalls(at: int, seconds: float) -> Script:
    """Everything stands still once, when request `at` comes."""

    def script(number: int) -> bytes:
        if number == at:
            time.sleep(seconds)
        return reply()

    return script


class LocalServer:
    """Answers request number n (from 0) with `script(n)`; b"" breaks its connection. A context manager."""

    def __init__(self, script: Script = lambda number: reply()) -> None:
        self.script = script
        self.count = 0
        self.bodies: list[bytes] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._up = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self.bodies.append(await reader.readexactly(int(lengths[0].split(b":")[1])))
                self.count += 1
                answer = self.script(self.count - 1)
                if not answer:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()
