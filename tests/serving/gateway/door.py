"""The gateway at a port, in a thread of its own: what came to it, and what of that it passed on to the workers."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvicorn

from serving.gateway.access.cors import with_cors
from serving.gateway.access.gate import Gate
from serving.gateway.access.options import AccessOptions
from serving.gateway.addresses import ROUTES
from serving.gateway.app import Gateway
from serving.gateway.call import Call
from serving.gateway.connection import Connection
from serving.gateway.dispatcher import Dispatcher
from serving.gateway.service import Observers
from serving.protocol.frames import Answered
from serving.protocol.messages import Answer, Picture
from serving.protocol.operations import Request

SECRET = "what only the workers know"


@dataclass
class Door:
    """`came` are the method, path and status of every request; `passed_on` the operations that reached a worker."""

    port: int
    came: list[tuple[str, str, int]] = field(default_factory=list)
    passed_on: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def statuses(self) -> set[int]:
        return {status for _, _, status in self.came}

    def forget(self) -> None:
        self.came.clear()
        self.passed_on.clear()

    def replied(self, call: Call, status: int, size: int, seconds: float) -> None:
        """As the gateway tells its observers."""
        self.came.append((call.method, call.scope["path"], status))

    async def send(self, requests: Sequence[Request], origins: Sequence[str]) -> Answered:
        """Where TorchServe stands: the same answer to everything."""
        self.passed_on += [request.op for request in requests]
        items = [{"id": "a", "image": Picture(b"GIF89a", "image/gif")}]
        return Answered([Answer("a/1", items, more={"secret": SECRET, "outcome": "replaced"}) for _ in requests])


@contextmanager
def opened(keys: Path, origins: Sequence[str] = ()) -> Iterator[Door]:
    """A gateway as `simclr serve` has it, for pages of these origins."""
    options = AccessOptions(keys=str(keys), allowed_origins=tuple(origins))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        door = Door(listening.getsockname()[1])
        loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(_serve(door, options, listening, ready, stop),))
        thread.start()
        try:
            assert ready.wait(30), "the gateway did not start"
            yield door
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()


async def _serve(
    door: Door, options: AccessOptions, listening: socket.socket, ready: threading.Event, stop: asyncio.Event
) -> None:
    gateway = Gateway(Dispatcher(door.send), ROUTES, gate=Gate(options), observers=Observers([door]))
    await gateway.start()
    app = with_cors(gateway, options.allowed_origins)
    config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve(sockets=[listening]))
    ready.set()
    await stop.wait()
    server.should_exit = server.force_exit = True
    await serving
    await gateway.close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title><body>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def web_site() -> Iterator[int]:
    """A web server with the same empty page everywhere, at 127.0.0.1; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            yield site.server_port
        finally:
            site.shutdown()
            thread.join()
