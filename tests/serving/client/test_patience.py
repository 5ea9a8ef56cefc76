"""A busy server, and one that loses connections: what is sent again, how often, and what is not."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from serving.client import AsyncClient, Client, ServerError
from serving.client.patience import Patience, retry_after

LOST = 0  # in place of a status: the connection ends without a reply
FINE = b'{"release": "digits/1", "results": [], "count": 3, "deleted": 1, "missing": [], "job": {"state": "done"}}'
Kind = type[Client] | type[AsyncClient]


class Busy:
    """Answers with these statuses, one after the other, and then with 200; `seen` is what it was asked for."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.seen: list[str] = []
        self.url = ""

    def handler(self) -> type[BaseHTTPRequestHandler]:
        busy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                busy.seen.append(f"{self.command} {self.path}")
                status = busy.statuses.pop(0) if busy.statuses else 200
                if status == LOST:
                    self.close_connection = True
                    return
                body = FINE if status == 200 else b'{"error": {"status": 0, "message": "the queue is full"}}'
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **busy.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        return Handler


@pytest.fixture
def busy() -> Iterator[Busy]:
    found = Busy()
    with ThreadingHTTPServer(("127.0.0.1", 0), found.handler()) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(params=[Client, AsyncClient])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


def ask(kind: Kind, url: str, *calls: Callable[[Any], Any], **options: Any) -> Any:
    """What the last of some methods of a client returns."""
    if kind is Client:
        with Client(url, **options) as client:
            return [call(client) for call in calls][-1]

    async def awaited() -> Any:
        async with AsyncClient(url, **options) as client:
            return [await call(client) for call in calls][-1]

    return asyncio.run(awaited())


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again_when_it_says(busy: Busy, kind: Kind, status: int) -> None:
    busy.statuses, busy.headers = [status, status], {"retry-after": "0"}
    assert ask(kind, busy.url, lambda client: client.count()) == 3
    assert busy.seen == ["POST /v1/collections/default/count"] * 3


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.upsert([{"id": "cat", "image": b"file"}]),
        lambda client: client.update([{"id": "cat", "label": None}]),
        lambda client: client.delete(["cat"]),
    ],
)
def test_writes_that_can_be_made_twice_are_sent_again(busy: Busy, call: Callable[[Any], Any]) -> None:
    busy.statuses = [503]
    ask(Client, busy.url, call)
    assert len(busy.seen) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.delete(filter={"label": "cat"}),
        lambda client: client.snapshot("monday"),
        lambda client: client.restore("monday"),
    ],
)
def test_other_writes_are_not(busy: Busy, kind: Kind, call: Callable[[Any], Any]) -> None:
    busy.statuses = [503]
    with pytest.raises(ServerError, match="503: the queue is full") as refused:
        ask(kind, busy.url, call)
    assert (refused.value.status, refused.value.again) == (503, True)
    assert len(busy.seen) == 1


@pytest.mark.parametrize(
    ("status", "header", "patience", "again"), [(503, "0", 0, True), (503, "11", 10, True), (400, "0", 10, False)]
)
def test_when_it_gives_up_at_once(
    busy: Busy, kind: Kind, status: int, header: str, patience: float, again: bool
) -> None:
    busy.statuses, busy.headers = [status], {"retry-after": header}
    with pytest.raises(ServerError) as refused:
        ask(kind, busy.url, lambda client: client.count(), patience=patience)
    assert (refused.value.status, refused.value.again) == (status, again)
    assert len(busy.seen) == 1


def test_a_lost_connection_is_one_more_try_for_reads_of_a_server_that_was_there(busy: Busy, kind: Kind) -> None:
    busy.statuses = [200, LOST]
    assert ask(kind, busy.url, lambda client: client.describe(), lambda client: client.count()) == 3
    assert len(busy.seen) == 3


@pytest.mark.parametrize(
    ("statuses", "last"),
    [([LOST], lambda client: client.count()), ([200, LOST], lambda client: client.delete(["cat"]))],
    ids=["never there", "a write"],
)
def test_a_lost_connection_is_an_error_otherwise(
    busy: Busy, kind: Kind, statuses: list[int], last: Callable[[Any], Any]
) -> None:
    busy.statuses = [*statuses]
    first = [lambda client: client.describe()] * (len(statuses) - 1)
    with pytest.raises(ServerError, match=f"no answer from {busy.url}: .*; is the server running") as refused:
        ask(kind, busy.url, *first, last)
    assert refused.value.status == 0
    assert len(busy.seen) == len(statuses)


def test_pauses_end_with_the_patience() -> None:
    patience = Patience(10.0)
    assert [patience.pause() for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 4.0, None]
    patience = Patience(10.0)
    assert [patience.pause(6), patience.pause(6), patience.pause(4), patience.pause(0)] == [6, None, 4, None]
    assert Patience(1.0).pause(0) == 0.25, "no server is asked without any pause"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_what_a_server_may_say_of_when(text: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(503, headers={"retry-after": text})) == seconds


def test_a_moment_to_come() -> None:
    found = retry_after(httpx.Response(503, headers={"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}))
    assert found is not None
    assert found > 1e9
