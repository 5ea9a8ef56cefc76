"""Embedding with a server: order, ids, bad images, a full queue, another release; and with TorchServe."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import numpy as np
import pyarrow.parquet as pq
import pytest

from cli.main import main as simclr
from serving.client.client import Client, ServerError
from serving.engine import Engine
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.reader import read
from serving.jobs.bulk.through_server import embed_paths
from serving.protocol.parts import body_from
from serving.protocol.wire import Reply, encode, request_for
from serving.torchserve.launch import Server
from tests.conftest import Chain
from tests.sent import operation_at, sent_parts
from tests.serving.jobs.conftest import Whole, write_images

Change = Callable[[int, Reply], Reply]


class Door:
    """The real engine and wire format behind Python's own HTTP server; `change` may alter the reply to request n."""

    def __init__(self, engine: Engine) -> None:
        self.change: Change = lambda number, reply: reply
        self.sizes: list[int] = []
        self._engine = engine
        self._lock = Lock()

    def reply(self, address: tuple[str, str], body: bytes, headers: dict[str, str]) -> Reply:
        """Answer one request to a method and path."""
        plain = {name.lower(): value for name, value in headers.items()}
        parts = sent_parts(body, plain.get("content-type")) if body else []
        accept = plain.get("accept", "")
        request, accepted = request_for(body_from((), parts, accept=accept), operation_at(*address), accept)
        with self._lock:
            [answer] = self._engine.answer([request])
            self.sizes.append(len(request.files))
            return self.change(len(self.sizes) - 1, encode(answer, accepted))

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """What the HTTP server calls."""
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self._send(door.reply(("POST", self.path), body, dict(self.headers)))

            def do_GET(self) -> None:
                self._send(door.reply(("GET", self.path), b"", dict(self.headers)))

            def log_message(self, format: str, *arguments: object) -> None:
                pass

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                headers = {"content-type": reply.content_type, "content-length": str(len(reply.body)), **reply.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

        return Handler


@pytest.fixture
def door(small_engine: Engine) -> Door:
    return Door(small_engine)


@pytest.fixture
def url(door: Door) -> Iterator[str]:
    """Where the door is."""
    with ThreadingHTTPServer(("127.0.0.1", 0), door.handler()) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def near(url: str) -> Iterator[Client]:
    """A client of the door."""
    with Client(url) as connected:
        yield connected


def test_it_gives_what_the_offline_command_gives(
    near: Client, door: Door, whole: Whole, images: Path, tmp_path: Path
) -> None:
    summary = embed_paths(near, [str(images)], tmp_path / "e.npy", connections=3)
    assert (summary.images, summary.embedded, summary.dim) == (90, 83, 16)
    found, table = np.load(tmp_path / "e.npy"), pq.read_table(tmp_path / "e.parquet")
    shards = list(read(whole.out))
    np.testing.assert_allclose(found, np.concatenate([shard.embeddings for shard in shards]), atol=1e-6)
    rows = [row for shard in shards for row in shard.table.to_pylist()]
    assert [row["id"] for row in table.to_pylist()] == [row["id"] for row in rows]
    assert [row["sha256"] for row in table.to_pylist()] == [row["sha256"] for row in rows]
    assert [row["error"] is None for row in table.to_pylist()] == [row["error"] is None for row in rows]
    assert [row["row"] for row in table.to_pylist() if row["error"] is None] == list(range(83))
    assert summary.reasons[0].startswith("a/00.png: 415: not an image of a known format")
    assert max(door.sizes) == 16
    assert set(door.sizes[1:]) == {16, 15, 10, 1}  # describe, 90 images less one that has no file, and 32 again, alone


@pytest.mark.parametrize(("status", "message"), [(503, "queue is full"), (500, "Worker died."), (507, "Worker died.")])
def test_a_full_queue_and_a_worker_that_died_are_asked_again(
    near: Client, door: Door, images: Path, tmp_path: Path, status: int, message: str
) -> None:
    lost = Reply(status, json.dumps({"code": status, "message": message}).encode())
    door.change = lambda number, reply: lost if number in (1, 2) else reply
    assert embed_paths(near, [str(images / "a.b")], tmp_path / "e.npy", connections=1).embedded == 30


def test_another_release_is_refused(near: Client, door: Door, images: Path, tmp_path: Path) -> None:
    door.change = lambda number, reply: (
        Reply(reply.status, reply.body, reply.content_type, {**reply.headers, "x-release": "matrix/2"})
        if number == 2
        else reply
    )
    with pytest.raises(BulkError, match=r"from release matrix/1 to matrix/2 meanwhile.*run it again"):
        embed_paths(near, [str(images / "a.b")], tmp_path / "e.npy")
    assert not list(tmp_path.glob("*.npy*"))
    assert not list(tmp_path.glob(".*"))


def test_a_failing_server_is_an_error_and_leaves_nothing(
    near: Client, door: Door, images: Path, tmp_path: Path
) -> None:
    door.change = lambda number, reply: Reply(500, b'{"error": {"message": "internal error"}}') if number else reply
    with pytest.raises(ServerError, match="500: internal error"):
        embed_paths(near, [str(images / "a.b")], tmp_path / "e.npy")
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_came_of_it(
    url: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.npy"
    assert simclr(["embed", "--url", url, str(images), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    said, following = printed.out.splitlines()
    assert said == f"{out}: float32 (83, 16); ids: {tmp_path / 'e.parquet'}, 7 unreadable"
    assert following.startswith("next: in Python, `numpy.load(")
    assert len([line for line in printed.err.splitlines() if line.startswith("left out ")]) == 7
    (tmp_path / "bad.png").write_bytes(b"")
    assert simclr(["embed", "--url", url, str(tmp_path / "bad.png"), "--out", str(out)]) == 1
    for arguments, message in [
        (["nowhere", "--out", str(out)], "nowhere does not exist"),
        ([str(images), "--out", "e.bin"], "--out is e.bin; it must end in .npy"),
    ]:
        assert simclr(["embed", "--url", url, *arguments]) == 1
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"


def test_torchserve_gives_what_the_engine_gives(server: Server, chain: Chain, engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_images(folder, [f"{number:02d}.png" for number in range(20)])
    names = [chain.data.ids[row] for row in chain.data.rows("test")[:30]]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(chain.data.read_item(name))
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:60])
    assert simclr(["embed", "--url", server.url, str(folder), "--out", str(tmp_path / "e.npy")]) == 0
    found, table = np.load(tmp_path / "e.npy"), pq.read_table(tmp_path / "e.parquet").to_pylist()
    rows = {row["id"]: row["row"] for row in table}
    assert rows["broken.png"] is None
    assert len(found) == 50
    pixels = np.stack([chain.data.images[row] for row in chain.data.rows("test")[:30]])
    np.testing.assert_allclose(found[[rows[name] for name in names]], engine.embed(pixels).embedding, atol=1e-4)
