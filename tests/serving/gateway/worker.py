"""A gateway in a process of its own, and behind it, at the Unix socket, a server that answers frames as a worker does.

It stands for TorchServe, whose start takes seconds, and for nothing of ours: frames are read and written by the code
that workers have.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from threading import Thread
from typing import IO, Any

import httpx
import numpy as np

from serving.gateway.access.options import AccessOptions
from serving.gateway.options import GatewayOptions
from serving.gateway.process import GatewayProcess
from serving.protocol.frames import Work, pack_answers, unpack_requests
from serving.protocol.messages import Answer
from serving.protocol.operations import DescribeRequest, Request

ITEMS = 240
DEADLY = b"an image that no worker survives"


def answer(request: Request) -> Answer:
    """What a worker with a collection would say, but for the numbers."""
    if isinstance(request, DescribeRequest):
        return Answer("photos/1", more={"collection": {"items": ITEMS}})
    return Answer("photos/1", [{"embedding": np.ones(4, np.float32)} for _ in request.files or [b""]])


class _Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        message = self.rfile.read(int(self.headers["content-length"]))
        asked, begun = unpack_requests(message), time.time()
        if any(DEADLY in one.files for one in asked.requests):
            self.close_connection = True
            return
        body = pack_answers([answer(one) for one in asked.requests], work=Work(os.getpid(), begun, time.time() - begun))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return "unix"


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@dataclass
class Served:
    """A gateway that runs: a client of it, its process, and the lines that it has said."""

    client: httpx.Client
    process: GatewayProcess
    lines: list[str]

    def said(self, text: str) -> str:
        """The first line that has this text, once there is one."""
        until(lambda: any(text in line for line in self.lines))
        return next(line for line in self.lines if text in line)


def until(found: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait for a condition, which has so long to come true."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.02)


@contextmanager
def gateway(folder: Path, *, behind: bool = True, behind_proxy: bool = False, **options: Any) -> Iterator[Served]:
    """A gateway with these options; `behind` says whether there is a worker."""
    path = folder / "inference.sock"
    server = _Server(str(path), _Worker) if behind else None
    if server is not None:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    listening = socket.create_server(("127.0.0.1", 0))
    access = AccessOptions(keys=str(folder / "keys.json"), behind_proxy=behind_proxy)
    process = GatewayProcess(GatewayOptions(socket=str(path), access=access, **options), listening, folder)
    lines: list[str] = []
    Thread(target=_copy, args=(process.start(), lines), daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            yield Served(client, process, lines)
    finally:
        process.stop()
        listening.close()
        if server is not None:
            server.shutdown()
            server.server_close()


def _copy(pipe: IO[bytes], lines: list[str]) -> None:
    lines.extend(line.decode().rstrip("\n") for line in pipe)
