"""The gate: requests by their headers, with and without keys."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.gateway.access.callers import Caller
from serving.gateway.access.gate import Gate
from serving.gateway.access.options import AccessOptions
from serving.protocol.messages import RequestError
from serving.protocol.wire import encode_error
from tests.serving.gateway.access.key_files import add

Headers = Mapping[str, str | bytes]
HERE = "127.0.0.1:8080"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def ask(gate: Gate, headers: Headers, **said: Any) -> Caller:
    """Ask by POST for something that reads the collection `default`, unless said otherwise."""
    sent = [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in {"host": HERE, "accept": "*/*", **headers}.items()
    ]
    return gate.admit(sent, **{"method": "POST", "scope": "read", "collection": "default"} | said)


def status(gate: Gate, headers: Headers, **said: Any) -> int:
    """The HTTP status of a refusal, 200 if there is none."""
    try:
        ask(gate, headers, **said)
    except RequestError as error:
        return error.status
    return 200


# keys


def test_without_a_key_file_anyone_here_may_do_anything(file: Path) -> None:
    gate = Gate(AccessOptions(keys=str(file)))
    assert not gate.needs_keys
    assert ask(gate, {}, scope="admin").scope == "admin"
    assert status(gate, {"authorization": "Bearer of another server"}) == 200


def test_a_key_by_either_header(file: Path) -> None:
    key = add(file, "a", scope="write")
    gate = Gate(AccessOptions(keys=str(file)))
    forms: tuple[Headers, ...] = (
        {"authorization": b"Bearer " + key},
        {"authorization": b"bearer  " + key},
        {"x-api-key": key},
        {"authorization": b"Bearer " + key, "x-api-key": key},
        {"authorization": "Basic YTpi", "x-api-key": key},
    )
    for headers in forms:
        assert ask(gate, headers).name == "a"


def test_no_key_or_a_wrong_one_is_401(file: Path) -> None:
    key = add(file, "a")
    gate = Gate(AccessOptions(keys=str(file)))
    without: tuple[Headers, ...] = ({}, {"authorization": b"Basic " + key}, {"authorization": key}, {"x-api-key": b""})
    for headers in without:
        with pytest.raises(RequestError, match="a key is needed") as refused:
            ask(gate, headers)
        assert refused.value.status == 401
    with pytest.raises(RequestError, match="unknown or revoked") as refused:
        ask(gate, {"x-api-key": key[:-1] + b"~"})
    reply = encode_error(refused.value)
    assert (reply.status, reply.headers) == (401, {"www-authenticate": "Bearer"})


def test_headers_that_contradict_one_another_are_400(file: Path) -> None:
    key, other = add(file, "a"), add(file, "b")
    gate = Gate(AccessOptions(keys=str(file)))
    assert status(gate, {"authorization": b"Bearer " + key, "x-api-key": other}) == 400
    for twice in ([(b"x-api-key", key), (b"x-api-key", other)], [(b"host", b"localhost"), (b"host", b"evil")]):
        with pytest.raises(RequestError, match="given twice"):
            gate.admit(twice, method="GET", scope="read")


@pytest.mark.parametrize(
    ("has", "needs", "may"),
    [
        *(("read", "read", True), ("read", "write", False), ("read", "admin", False)),
        *(("write", "read", True), ("write", "write", True), ("write", "admin", False)),
        *(("admin", "read", True), ("admin", "write", True), ("admin", "admin", True)),
    ],
)
def test_a_larger_scope_has_the_smaller_ones(has: str, needs: str, may: bool, file: Path) -> None:
    key = add(file, "a", scope=has)
    gate = Gate(AccessOptions(keys=str(file)))
    if may:
        assert ask(gate, {"x-api-key": key}, scope=needs).name == "a"
        return
    with pytest.raises(RequestError, match=f"needs a key with scope {needs}; the key a has scope {has}") as refused:
        ask(gate, {"x-api-key": key}, scope=needs)
    assert refused.value.status == 403


def test_another_collection_than_the_keys_is_403_and_none_is_fine(file: Path) -> None:
    key = add(file, "a", collections=("default", "cats"))
    gate = Gate(AccessOptions(keys=str(file)))
    for collection in ("default", "cats", None):
        assert ask(gate, {"x-api-key": key}, collection=collection).name == "a"
    with pytest.raises(RequestError, match="not for the collection 'dogs', only for cats, default") as refused:
        ask(gate, {"x-api-key": key}, collection="dogs")
    assert refused.value.status == 403


def test_what_is_public_needs_no_key(file: Path) -> None:
    add(file, "a")
    gate = Gate(AccessOptions(keys=str(file)))
    assert ask(gate, {}, scope=None, method="GET").scope == "read"


def test_a_first_key_closes_a_running_gateway(file: Path) -> None:
    now = 0.0
    gate = Gate(AccessOptions(keys=str(file)), clock=lambda: now)
    assert status(gate, {}) == 200
    key = add(file, "a")
    now = 1.0
    assert status(gate, {}) == 401
    assert status(gate, {"x-api-key": key}) == 200


def test_a_key_has_its_rate(file: Path) -> None:
    now = 50.0
    key, free = add(file, "a", rate=1.0), add(file, "b")
    gate = Gate(AccessOptions(keys=str(file)), clock=lambda: now)
    assert [status(gate, {"x-api-key": key}) for _ in range(3)] == [200, 200, 429]
    assert status(gate, {"x-api-key": free}) == 200
    assert status(gate, {"x-api-key": key}, scope=None) == 200
    now = 51.0
    assert status(gate, {"x-api-key": key}) == 200


# where it listens


def test_a_gateway_for_others_does_not_start_without_keys_and_encryption(file: Path) -> None:
    with pytest.raises(ValueError, match="simclr keys add"):
        Gate(AccessOptions(keys=str(file), host="0.0.0.0", tls_cert="c", tls_key="k"))
    key = add(file, "a")
    with pytest.raises(ValueError, match="--tls-cert"):
        Gate(AccessOptions(keys=str(file), host="0.0.0.0"))
    gate = Gate(AccessOptions(keys=str(file), host="0.0.0.0", tls_cert="c", tls_key="k"))
    assert status(gate, {"host": "images.example.org", "x-api-key": key}) == 200
    assert status(gate, {"host": "images.example.org"}) == 401


def test_every_origin_is_allowed_only_where_keys_are_needed(file: Path) -> None:
    with pytest.raises(ValueError, match=r"--allow-origin '\*' would let every web site"):
        Gate(AccessOptions(keys=str(file), allowed_origins=("*",)))
    add(file, "a")
    Gate(AccessOptions(keys=str(file), allowed_origins=("*",)))


# hosts


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((name, 200) for name in ("localhost", "LocalHost:1", "localhost.", "localhost.:80", "127.0.0.1", "[::1]:9")),
        *((name, 200) for name in ("127.0.0.5", "a.example.org", "A.Example.org:8443")),
        *((name, 421) for name in ("", ":80", "evil.example", "127.0.0.2", "localhost.evil", "a.example.org.evil")),
        *((name, 421) for name in ("localhost:80:80", "x@localhost", "localhost/", "::1", "localhost:x", "127.0.0.1 ")),
        *(
            (name, 421)
            for name in ("0.0.0.0", "2130706433", "\xff", "localhost..", "localhost, evil", "b.a.example.org")
        ),
    ],
)
def test_only_our_names_are_answered(host: str, expected: int, file: Path) -> None:
    gate = Gate(AccessOptions(keys=str(file), host="127.0.0.5", allowed_hosts=("a.example.org",)))
    for public in (False, True):
        assert status(gate, {"host": host}, scope=None if public else "read") == expected


def test_with_keys_the_name_matters_only_if_one_is_given(file: Path) -> None:
    key = add(file, "a")
    assert status(Gate(AccessOptions(keys=str(file))), {"host": "x", "x-api-key": key}) == 200
    assert status(Gate(AccessOptions(keys=str(file))), {"host": "x"}, scope=None) == 421
    assert status(Gate(AccessOptions(keys=str(file), behind_proxy=True)), {"host": "x"}, scope=None) == 200
    named = Gate(AccessOptions(keys=str(file), allowed_hosts=("a.example.org",)))
    assert status(named, {"host": "x", "x-api-key": key}) == 421
    assert status(named, {"host": "a.example.org", "x-api-key": key}) == 200


def test_a_request_without_a_host_is_400(file: Path) -> None:
    with pytest.raises(RequestError, match="no Host header") as refused:
        Gate(AccessOptions(keys=str(file))).admit([], method="GET", scope="read")
    assert refused.value.status == 400


# origins

OWN = f"http://{HERE}"
SITES = [
    ({}, 200),
    ({"origin": OWN, "sec-fetch-site": "same-origin"}, 200),
    ({"origin": "https://friend.example", "sec-fetch-site": "cross-site"}, 200),
    ({"sec-fetch-site": "same-origin"}, 200),
    ({"sec-fetch-site": "none"}, 200),
    ({"origin": "https://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": ""}, 403),
    ({"origin": f"https://{HERE}"}, 403),
    ({"origin": "http://127.0.0.1:3000"}, 403),
    ({"origin": "http://localhost:8080"}, 403),
    ({"origin": "http://friend.example"}, 403),
    ({"origin": "https://friend.example.evil"}, 403),
    ({"origin": "https://friend.example:444"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ({"origin": OWN, "x-forwarded-host": "evil.example"}, 200),
    ({"origin": "http://evil.example", "x-forwarded-host": "evil.example"}, 403),
    ({"origin": f"https://{HERE}", "x-forwarded-proto": "https"}, 403),
]


@pytest.mark.parametrize(("headers", "expected"), SITES)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_pages_of_other_sites_may_not_ask(headers: Headers, expected: int, method: str, file: Path) -> None:
    gate = Gate(AccessOptions(keys=str(file), allowed_origins=("https://friend.example",)))
    for scope in ("read", "write"):
        assert status(gate, headers, scope=scope, method=method) == expected


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}, 200),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("GET", {"origin": "https://evil.example", "sec-fetch-mode": "navigate"}, 403),
    ],
)
def test_a_link_may_lead_to_a_public_page(method: str, headers: Headers, expected: int, file: Path) -> None:
    assert status(Gate(AccessOptions(keys=str(file))), headers, scope=None, method=method) == expected


def test_a_page_with_a_key_may_ask_from_anywhere(file: Path) -> None:
    key = add(file, "a")
    gate = Gate(AccessOptions(keys=str(file)))
    assert status(gate, {"origin": "https://evil.example", "x-api-key": key}) == 200
    assert status(gate, {"origin": "https://evil.example"}) == 401


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "https://a.example.org", "x-forwarded-host": "a.example.org"}, 200),
        ({"origin": "https://a.example.org", "x-forwarded-host": "a.example.org", "x-forwarded-proto": "https"}, 200),
        ({"origin": "https://a.example.org", "x-forwarded-host": "a.example.org, b", "x-forwarded-proto": "http"}, 421),
        ({"origin": "http://a.example.org", "x-forwarded-host": "a.example.org", "x-forwarded-proto": "https"}, 403),
        ({"origin": "https://a.example.org", "host": "a.example.org"}, 200),
        ({"origin": "https://evil.example", "x-forwarded-host": "evil.example"}, 421),
        ({"host": "evil.example", "x-forwarded-host": "a.example.org"}, 421),
    ],
)
def test_a_proxy_says_how_it_was_asked(headers: Headers, expected: int, file: Path) -> None:
    gate = Gate(AccessOptions(keys=str(file), behind_proxy=True, allowed_hosts=("a.example.org",)))
    assert status(gate, headers) == expected


def test_by_tls_our_own_pages_are_https(file: Path) -> None:
    gate = Gate(AccessOptions(keys=str(file), tls_cert="c", tls_key="k"))
    assert status(gate, {"origin": f"https://{HERE}"}) == 200
    assert status(gate, {"origin": OWN}) == 403
