"""Which key a client sends, seen by a server that repeats the headers it was sent."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from cli.main import main
from serving.client import Client, ServerError


class Repeating(BaseHTTPRequestHandler):
    """Answers with the request's headers, whatever is asked."""

    def do_GET(self) -> None:
        body = orjson.dumps({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Repeating) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCLR_API_KEY", "of-environment\n")


def sent(url: str, api_key: str | None) -> dict[str, str]:
    with Client(url, api_key=api_key) as client:
        return client.describe()


@pytest.mark.parametrize(("given", "expected"), [("given", "Bearer given"), (None, "Bearer of-environment")])
def test_a_key_is_sent_as_bearer(address: str, given: str | None, expected: str) -> None:
    headers = sent(f"http://{address}", given)
    assert headers["authorization"] == expected
    assert "x-api-key" not in headers


def test_no_key_sends_none(address: str) -> None:
    headers = sent(f"http://{address}", "")
    assert not {"authorization", "x-api-key"} & headers.keys()


def test_with_a_password_for_the_proxy_both_arrive(address: str) -> None:
    headers = sent(f"http://user:password@{address}", "given")
    assert headers["authorization"].startswith("Basic ")
    assert headers["x-api-key"] == "given"


@pytest.mark.parametrize(("words", "expected"), [((), "of-environment"), (("--api-key", "typed"), "typed")])
def test_commands_send_it(
    address: str, words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "--url", f"http://{address}", *words]) == 0
    assert orjson.loads(capsys.readouterr().out)["authorization"] == f"Bearer {expected}"


@pytest.mark.parametrize("key", ["schlüssel", "a\nb"])
def test_what_is_no_key_is_an_error(key: str) -> None:
    with pytest.raises(ServerError, match="characters that no key has"):
        Client(api_key=key)
