"""Who may, over real HTTP: a gateway in a process of its own, with no TorchServe behind it.

What is refused is refused at the door; what is let through fails further in, on a body that says nothing.
"""

import base64
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.gateway.access.options import AccessOptions
from serving.gateway.addresses import ROUTES
from serving.gateway.options import GatewayOptions
from serving.gateway.process import GatewayProcess
from serving.gateway.routes import Route
from serving.protocol.operations import OPERATIONS
from tests.serving.gateway.access.certificates import make
from tests.serving.gateway.access.key_files import add, done, simclr_keys

NAMED = {"collection": "default", "model": "simclr"}
REFUSED = (401, 403, 421)
IMAGE = base64.b64encode(b"\x89PNG").decode()
CHANGES: dict[str, dict[str, Any]] = {
    "upsert": {"items": [{"id": "a", "image": IMAGE}]},
    "update": {"items": [{"id": "a", "label": "b"}]},
    "delete": {"ids": ["a"]},
    "snapshot": {"name": "a"},
    "restore": {"name": "a"},
    "remove_snapshot": {"name": "a"},
}

Start = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts gateways, each with a client that has no key; they end with the module."""
    running: list[tuple[GatewayProcess, socket.socket, httpx.Client]] = []

    def start(file: Path, **access: Any) -> httpx.Client:
        folder = tmp_path_factory.mktemp("gateway")
        listening = socket.create_server(("127.0.0.1", 0))
        options = GatewayOptions(socket=str(folder / "none.sock"), access=AccessOptions(keys=str(file), **access))
        process = GatewayProcess(options, listening, folder)
        process.start()
        verify: ssl.SSLContext | bool = False
        scheme = "https" if access.get("tls_cert") else "http"
        client = httpx.Client(
            base_url=f"{scheme}://127.0.0.1:{listening.getsockname()[1]}", verify=verify, trust_env=False, timeout=10
        )
        running.append((process, listening, client))
        until(lambda: client.get("/healthz").status_code == 200, process)
        return client

    yield start
    for process, listening, client in running:
        client.close()
        process.kill()
        listening.close()


def until(found: Callable[[], bool], process: GatewayProcess | None = None, *, seconds: float = 30.0) -> None:
    """Wait for a condition, which has so long to come true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, "the gateway ended"
        try:
            if found():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    pytest.fail(f"not within {seconds} seconds")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Keys by what they are for, and the `file` that has them."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    made = {scope: add(file, scope, scope=scope).decode() for scope in ("read", "write", "admin")}
    made["elsewhere"] = add(file, "elsewhere", scope="admin", collections=("elsewhere",)).decode()
    return made | {"file": str(file)}


@pytest.fixture(scope="module")
def closed(started: Start, keys: dict[str, str]) -> httpx.Client:
    """A gateway that needs keys, and a name."""
    return started(Path(keys["file"]), allowed_hosts=("images.example.org",))


@pytest.fixture(scope="module")
def open_here(started: Start, tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    """A gateway without keys."""
    return started(tmp_path_factory.mktemp("none") / "keys.json", allowed_origins=("https://friend.example",))


def status(client: httpx.Client, route: Route, key: str = "", headers: dict[str, str] | None = None) -> int:
    """What comes of a body that nobody can read: 400 where it is looked at."""
    path = re.sub(r"\{(\w+)\}", lambda part: NAMED.get(part[1], "x"), route.path)
    said = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    return client.request(route.method, path, content=b"{", headers=said | (headers or {})).status_code


def asked(client: httpx.Client, headers: dict[str, str] | None = None) -> httpx.Response:
    """The reply to a search that nobody can read, 400 where it is looked at."""
    return client.post("/v1/search", content=b"{", headers={"content-type": "application/json"} | (headers or {}))


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


GUARDED = [route for route in ROUTES if route.scope is not None]
OPEN = [route for route in ROUTES if route.scope is None]


@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_every_route_needs_a_key(route: Route, closed: httpx.Client) -> None:
    assert status(closed, route) == 401
    assert status(closed, route, "simclr_00000000_" + 43 * "A") == 401


@pytest.mark.parametrize("route", [route for route in GUARDED if route.scope != "read"], ids=named)
def test_every_route_needs_its_scope(route: Route, closed: httpx.Client, keys: dict[str, str]) -> None:
    smaller = {"write": ["read"], "admin": ["read", "write"]}[str(route.scope)]
    assert {status(closed, route, keys[scope]) for scope in smaller} == {403}
    assert status(closed, route, keys["admin"]) not in REFUSED


@pytest.mark.parametrize("route", [route for route in GUARDED if "{collection}" in route.path], ids=named)
def test_every_collection_needs_a_key_of_its_own(route: Route, closed: httpx.Client, keys: dict[str, str]) -> None:
    assert status(closed, route, keys["elsewhere"]) == 403


@pytest.mark.parametrize("route", OPEN, ids=named)
def test_what_is_public_is_little_and_needs_no_key(route: Route, closed: httpx.Client) -> None:
    assert route.method == "GET"
    assert status(closed, route) not in REFUSED


def test_addresses_that_need_no_key_are_these() -> None:
    probes = r"/healthz|/readyz|/ping|/metrics|/v2/health/\w+|/v2/models/.*/ready|/\.well-known/\w+"
    public = rf"{probes}|/meta|/openapi\.json|/docs.*"
    assert [route.path for route in OPEN if not re.fullmatch(public, route.path)] == []


@pytest.mark.parametrize("name", [name for name, row in OPERATIONS.items() if row.changes])
def test_the_old_address_needs_the_scope_of_what_is_asked(
    name: str, closed: httpx.Client, keys: dict[str, str]
) -> None:
    for path in (f"/models/simclr/invoke?op={name}", f"/predictions/simclr?op={name}"):
        for key in ("read", "elsewhere"):
            reply = closed.post(path, json=CHANGES[name], headers={"x-api-key": keys[key]})
            assert reply.status_code == 403, reply.text


@pytest.mark.parametrize("path", ["/v1/search", "/models/simclr/invoke?op=search"])
def test_a_search_without_a_collection_in_its_path_is_in_the_default_one(
    path: str, closed: httpx.Client, keys: dict[str, str]
) -> None:
    said = {"ids": ["a"]}
    assert closed.post(path, json=said, headers={"x-api-key": keys["elsewhere"]}).status_code == 403
    vote = closed.post(
        path.replace("search", "classify"),
        json={"images": [IMAGE], "include": ["vote"]},
        headers={"x-api-key": keys["elsewhere"]},
    )
    assert vote.status_code == 403


def test_a_refusal_says_how_to_ask(closed: httpx.Client) -> None:
    reply = closed.get("/v1/describe")
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer KEY" in reply.json()["error"]["message"]


def test_a_refused_body_is_not_read(closed: httpx.Client) -> None:
    """A head that promises a body, of which nothing comes."""
    url = closed.base_url
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        head = ["POST /v1/embed HTTP/1.1", "host: localhost", "content-type: image/png", "content-length: 50000000"]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401")


def test_keys_come_and_go_without_a_restart(started: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    client = started(file)
    assert asked(client).status_code == 400
    code, printed, said = done(simclr_keys("add", "a", "--scope", "read", "--file", str(file)))
    assert code == 0, said
    key = {"authorization": f"Bearer {printed.strip()}"}
    until(lambda: asked(client).status_code == 401, seconds=2.0)
    assert asked(client, key).status_code == 400
    assert done(simclr_keys("revoke", "a", "--file", str(file)))[0] == 0
    until(lambda: asked(client, key).status_code == 401, seconds=2.0)


def test_a_key_that_asks_too_often_is_told_when_to_come_again(started: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add(file, "a", rate=0.1).decode()
    client = started(file)
    replies = [asked(client, {"x-api-key": key}) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [400, 429]
    assert 1 <= int(replies[1].headers["retry-after"]) <= 10


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "192.168.0.1"])
def test_another_servers_name_is_misdirected(
    host: str, open_here: httpx.Client, closed: httpx.Client, keys: dict[str, str]
) -> None:
    for path in ("/healthz", "/v1/describe", "/models/simclr/invoke"):
        assert open_here.get(path, headers={"host": host}).status_code == 421
        assert closed.get(path, headers={"host": host, "x-api-key": keys["admin"]}).status_code == 421


def test_our_names_are_not(open_here: httpx.Client, closed: httpx.Client) -> None:
    for host in ("localhost", "localhost:1", "[::1]:8080"):
        assert open_here.get("/healthz", headers={"host": host}).status_code == 200
    assert closed.get("/healthz", headers={"host": "images.example.org"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
@pytest.mark.parametrize("route", GUARDED, ids=named)
def test_another_sites_page_gets_nothing(headers: dict[str, str], route: Route, open_here: httpx.Client) -> None:
    assert status(open_here, route, headers=headers) == 403


def test_another_sites_form_deletes_nothing(open_here: httpx.Client) -> None:
    headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    reply = open_here.post("/models/simclr/invoke?op=delete", data={"ids": "a"}, headers=headers)
    assert reply.status_code == 403
    assert "may not ask without a key" in reply.json()["error"]["message"]


def test_our_own_pages_and_allowed_ones_may_ask(open_here: httpx.Client) -> None:
    own = str(open_here.base_url).rstrip("/")
    for origin in (own, "https://friend.example"):
        assert asked(open_here, {"origin": origin}).status_code == 400


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return client.options("/v1/search", headers={"origin": origin} | asked)


def test_a_preflight_is_answered_for_allowed_origins_only(open_here: httpx.Client, closed: httpx.Client) -> None:
    reply = preflight(open_here, "https://friend.example")
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://friend.example"
    assert "authorization" in reply.headers["access-control-allow-headers"]
    for refused in (
        preflight(open_here, "https://evil.example"),
        preflight(closed, "https://friend.example"),
    ):
        assert "access-control-allow-origin" not in refused.headers, "without it a browser asks no further"


def test_an_allowed_page_may_read_what_comes_refusals_too(open_here: httpx.Client) -> None:
    reply = asked(open_here, {"origin": "https://friend.example"})
    assert reply.headers["access-control-allow-origin"] == "https://friend.example"
    assert "x-release" in reply.headers["access-control-expose-headers"]
    other = asked(open_here, {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_by_https_with_a_certificate_that_is_renewed(started: Start, tmp_path: Path) -> None:
    chain, key = make(tmp_path, "first")
    client = started(tmp_path / "keys.json", tls_cert=chain, tls_key=key)
    address = ("127.0.0.1", int(client.base_url.port or 0))
    first = ssl.get_server_certificate(address)
    assert first.strip() in Path(chain).read_text()
    second = make(tmp_path, "second")
    Path(second[1]).replace(key)
    Path(second[0]).replace(chain)
    until(lambda: ssl.get_server_certificate(address) != first, seconds=5.0)
    assert client.get("/healthz").status_code == 200
