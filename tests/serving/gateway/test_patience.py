"""Clients that are slow, or go away, over real connections: they cost neither memory nor anybody's time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from serving.gateway import call as calls
from serving.gateway import connection as connections
from serving.gateway.access.gate import Gate
from serving.gateway.access.options import AccessOptions
from serving.gateway.addresses import ROUTES
from serving.gateway.app import Gateway
from serving.gateway.bodies import Bodies
from serving.gateway.connection import Connection
from serving.gateway.dispatcher import Dispatcher, Limits, Send
from serving.protocol.frames import Answered
from serving.protocol.messages import Answer, Picture
from serving.protocol.operations import EmbedRequest, Request


async def at_once(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
    return Answered([Answer("a/1", more={"count": 3}) for _ in requests])


@dataclass
class Running:
    gateway: Gateway
    bodies: Bodies
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def running(send: Send = at_once) -> AsyncIterator[Running]:
    """The gateway at a port, with `send` where TorchServe stands."""
    listening = socket.create_server(("127.0.0.1", 0))
    gateway = Gateway(Dispatcher(send), ROUTES, gate=Gate(AccessOptions(keys="/nonexistent/keys.json")))
    await gateway.start()
    server = uvicorn.Server(uvicorn.Config(gateway, http=Connection, lifespan="off", log_config=None))
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    try:
        async with asyncio.timeout(30):
            yield Running(gateway, gateway.bodies, listening.getsockname()[1])
    finally:
        server.should_exit = server.force_exit = True
        await serving
        await gateway.close()


async def write_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


def head(path: str, length: int, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{more}\r\n".encode()


COUNT = "/v1/collections/default/count"


def test_a_head_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)

    async def work() -> None:
        async with running() as here:
            reader, writer = await here.connect()
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: local")
            assert await reader.read() == b"", "it was closed"

    asyncio.run(work())


def test_a_head_without_end_is_given_up() -> None:
    async def work() -> None:
        async with running() as here:
            _, writer = await here.connect()
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            with pytest.raises(ConnectionError):
                await write_without_end(writer)

    asyncio.run(work())


def test_a_body_that_stops_is_given_up_and_its_room_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_GRACE_SECONDS", 0.2)

    async def work() -> None:
        async with running() as here:
            reader, writer = await here.connect()
            writer.write(head("/v1/embed", 50 << 20) + b"x" * 100_000)
            said = await reader.read()
            assert said.startswith(b"HTTP/1.1 408 ")
            assert b"comes too slowly" in said
            assert here.bodies.large.free == here.bodies.large.size

    asyncio.run(work())


def test_an_upload_that_stops_half_way_is_given_up_however_much_had_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_GRACE_SECONDS", 0.3)

    async def work() -> None:
        async with running() as here:
            reader, writer = await here.connect()
            writer.write(head("/v1/embed", 60 << 20) + bytes(8 << 20))
            said = await reader.read()
            assert said.startswith(b"HTTP/1.1 408 ")
            assert here.bodies.large.free == here.bodies.large.size

    asyncio.run(work())


def test_whoever_waits_for_room_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.room._WAIT_SECONDS", 0.6)
    monkeypatch.setattr(calls, "_GRACE_SECONDS", 0.2)

    async def work() -> None:
        async with running() as here:
            await here.bodies.large.take(here.bodies.large.size)
            reader, writer = await here.connect()
            writer.write(head("/v1/embed", 60 << 20) + b"x" * 1000)
            said = await reader.read()
            assert said.startswith(b"HTTP/1.1 503 "), "the server has no room, which is not the client's fault"

    asyncio.run(work())


def test_unfinished_uploads_leave_the_door_open_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.room._WAIT_SECONDS", 0.3)

    async def work() -> None:
        async with running() as here:
            uploads = [await here.connect() for _ in range(20)]
            for _, writer in uploads:
                writer.write(head("/v1/embed", 60 << 20) + b"x" * 1000)
            said = await uploads[-1][0].read()
            assert b" 503 " in said.splitlines()[0]
            assert b"retry-after: 5" in said.lower()
            reader, writer = await here.connect()
            writer.write(head(COUNT, 2) + b"{}")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    asyncio.run(work())


def test_a_reader_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_READ_SECONDS", 0.2)

    async def pictures(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
        return Answered([Answer("a/1", [{"image": Picture(bytes(30 << 20), "image/jpeg")}]) for _ in requests])

    async def work() -> None:
        async with running(pictures) as here:
            _, writer = await here.connect()
            writer.write(b"GET /v1/collections/default/items/a/image HTTP/1.1\r\nHost: localhost\r\n\r\n")
            transport: Any = writer.transport
            transport.pause_reading()
            while here.gateway.active == 0:
                await asyncio.sleep(0.01)
            while here.gateway.active:
                await asyncio.sleep(0.01)

    asyncio.run(work())


def test_whoever_goes_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_WATCH_SECONDS", 0.01)
    asked: list[Sequence[Request]] = []

    async def work() -> None:
        hold = asyncio.Event()

        async def held(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
            asked.append(requests)
            await hold.wait()
            return await at_once(requests, origins)

        async with running(held) as here:
            first, gone = await here.connect(), await here.connect()
            first[1].write(head(COUNT, 2) + b"{}")
            while here.gateway.dispatcher.under_way == 0:
                await asyncio.sleep(0.01)
            gone[1].write(head(COUNT, 2) + b"{}")
            while len(here.gateway.dispatcher.quick) == 0:
                await asyncio.sleep(0.01)
            gone[1].close()
            while here.gateway.active > 1:
                await asyncio.sleep(0.01)
            hold.set()
            assert (await first[0].readline()).startswith(b"HTTP/1.1 200 ")
            assert len(asked) == 1, "nothing was asked for the one that went away"

    asyncio.run(work())


def test_a_refusal_before_the_body_closes_the_connection() -> None:
    async def work() -> None:
        async with running() as here:
            reader, writer = await here.connect()
            writer.write(head("/nowhere", 1000) + b"x")
            said = await reader.read()
            assert said.startswith(b"HTTP/1.1 404 ")
            assert b"connection: close" in said

    asyncio.run(work())


@asynccontextmanager
async def overloaded() -> AsyncIterator[Running]:
    """A gateway whose line of images is longer than anybody would wait, with workers that hold what they have."""
    hold = asyncio.Event()

    async def held(requests: Sequence[Request], origins: Sequence[str]) -> Answered:
        await hold.wait()
        return await at_once(requests, origins)

    async with running(held) as here:
        dispatcher = here.gateway.dispatcher
        dispatcher.limits = Limits(slots=2, guess=0.0125)
        many = EmbedRequest(images=(b"x",) * 64)
        line = [asyncio.create_task(dispatcher.answer(many)) for _ in range(20)]
        while dispatcher.overload(1) is None:
            await asyncio.sleep(0)
        try:
            yield here
        finally:
            for one in line:
                one.cancel()
            hold.set()


@pytest.mark.parametrize("path", ["/v1/embed", "/models/simclr/invoke?op=embed", "/v1/embeddings"])
def test_in_overload_a_short_body_is_refused_unparsed_and_its_connection_kept(path: str) -> None:
    async def work() -> None:
        async with overloaded() as here:
            reader, writer = await here.connect()
            for _ in range(3):
                writer.write(head(path, 5, "Content-Type: image/jpeg\r\n") + b"x" * 5)
                said = await reader.readuntil(b"\r\n\r\n")
                assert said.startswith(b"HTTP/1.1 503 ")
                assert b"retry-after: " in said.lower()
                assert b"connection: close" not in said.lower()
                await reader.readexactly(int(said.lower().partition(b"content-length: ")[2].split()[0]))
            writer.write(head(COUNT, 2) + b"{}")
            while len(here.gateway.dispatcher.quick) == 0:  # what brings no image goes next
                await asyncio.sleep(0.01)

    asyncio.run(work())


def test_in_overload_a_long_body_is_refused_before_it_comes() -> None:
    async def work() -> None:
        async with overloaded() as here:
            reader, writer = await here.connect()
            writer.write(head("/v1/embed", 60 << 20))
            said = await reader.read()
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in said.lower()
            assert here.bodies.large.free == here.bodies.large.size

    asyncio.run(work())
