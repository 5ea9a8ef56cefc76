"""Clients that mean no good, in a process of their own: `python -m benchmarks.serving.slow_clients`.

Told a port and two numbers, it keeps so many connections on which a head or a body comes a byte at a time, and so many
uploads of 60 MB that stop half-way. Whoever is dropped connects again. At the next message, or when its input ends, it
ends, and tells how often it was dropped.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from benchmarks.tools.child import hear_parent, tell_parent

_UPLOAD = 60 << 20
_CHUNK = bytes(256 << 10)
_BYTE_SECONDS = 0.5
_AGAIN_SECONDS = 0.5
_HEAD = b"POST /v1/embed HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def drip_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends, a byte at a time."""
    writer.write(b"POST /v1/embed HTTP/1.1\r\nX-Slow: ")
    await _drip(reader, writer)


async def drip_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body of some kilobytes a byte at a time."""
    writer.write(_HEAD % 4096)
    await _drip(reader, writer)


async def stop_half_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send half of an upload, or as much of it as is taken, and then nothing more."""
    writer.write(_HEAD % _UPLOAD)
    ended = asyncio.ensure_future(reader.read())
    for _ in range(_UPLOAD // 2 // len(_CHUNK)):
        writer.write(_CHUNK)
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.wait({draining, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            draining.cancel()
            break
    await ended


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    ended = asyncio.ensure_future(reader.read())
    while not ended.done():
        writer.write(b"x")
        await writer.drain()
        await asyncio.wait({ended}, timeout=_BYTE_SECONDS)


async def _again_and_again(client: Client, port: int, dropped: Counter[str]) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await client(reader, writer)
            finally:
                writer.transport.abort()
        dropped[client.__name__] += 1
        await asyncio.sleep(_AGAIN_SECONDS)


async def _annoy(port: int, slow: int, uploads: int) -> Counter[str]:
    dropped: Counter[str] = Counter()
    clients = [(drip_head, drip_body)[number % 2] for number in range(slow)] + [stop_half_way] * uploads
    tasks = [asyncio.create_task(_again_and_again(client, port, dropped)) for client in clients]
    await asyncio.to_thread(hear_parent)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return dropped


def main() -> None:
    """Be slow until told otherwise."""
    heard = hear_parent()
    assert heard is not None
    told = heard[0]
    tell_parent({"dropped": asyncio.run(_annoy(told["port"], told["slow"], told["uploads"]))})


if __name__ == "__main__":
    main()
