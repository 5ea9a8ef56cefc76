"""The access log and the ids of requests, over real HTTP."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.serving.gateway.access.key_files import add
from tests.serving.gateway.worker import DEADLY, Served, gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with gateway(tmp_path_factory.mktemp("gateway"), access_log=True) as running:
        yield running


def line(served: Served, name: str) -> Any:
    """The line of the request with this id."""
    return json.loads(served.said(f'"id":"{name}"'))


def test_a_line_says_all_but_what_is_nobodys_business(served: Served) -> None:
    content = b"\x89PNG"
    headers = {"x-request-id": "first", "content-type": "image/png", "x-forwarded-for": "1.2.3.4"}
    reply = served.client.post("/v1/embed?encoding_format=float", content=content, headers=headers)
    told = line(served, "first")
    assert datetime.now(UTC) - datetime.fromisoformat(told.pop("time")) < timedelta(minutes=1)
    assert 0 < told.pop("ms") < 30_000
    assert told == {
        "id": "first",
        "trace": None,
        "method": "POST",
        "path": "/v1/embed",
        "route": "/v1/embed",
        "operation": "embed",
        "status": 200,
        "bytes_in": len(content),
        "bytes_out": len(reply.content),
        "key": None,
        "client": "127.0.0.1",
    }


def test_what_is_not_there_is_logged_in_one_line(served: Served) -> None:
    path = "/" + "x" * 3000 + "%0A%22{}"
    assert served.client.get(path, headers={"x-request-id": "second"}).status_code == 404
    told = line(served, "second")
    assert (told["status"], told["route"], told["operation"], told["bytes_in"]) == (404, None, None, 0)
    assert told["path"] == path[:1000]


def test_the_key_is_named_and_not_told_and_a_proxy_is_heeded(tmp_path: Path) -> None:
    key = add(tmp_path / "keys.json", "camera").decode()
    with gateway(tmp_path, access_log=True, behind_proxy=True) as served:
        proxied = {"x-forwarded-for": "1.2.3.4, 2001:db8::7", "x-api-key": key, "x-request-id": "known"}
        served.client.get("/v1/describe", headers=proxied)
        served.client.get("/v1/describe", headers={"x-api-key": "wrong", "x-request-id": "unknown"})
        assert (line(served, "known")["key"], line(served, "known")["status"]) == ("camera", 200)
        assert [line(served, name)["client"] for name in ("known", "unknown")] == ["2001:db8::7", "127.0.0.1"]
        assert (line(served, "unknown")["key"], line(served, "unknown")["status"]) == (None, 401)
        assert not [one for one in served.lines if key in one or "wrong" in one]


def test_by_default_only_errors_are_logged_and_name_the_request(tmp_path: Path) -> None:
    with gateway(tmp_path) as served:
        assert served.client.get("/v1/describe", headers={"x-request-id": "lucky"}).status_code == 200
        reply = served.client.post("/v1/embed", content=DEADLY, headers={"x-request-id": "unlucky"})
        assert reply.status_code == 500
        assert served.said("unlucky").endswith("(unlucky)")
        assert served.client.get("/metrics").text.count("simclr_frames_lost_total 3.0") == 1
    assert not [one for one in served.lines if "lucky" in one.replace("unlucky", "")]


@pytest.mark.parametrize("path", ["/healthz", "/v1/describe", "/nothing"])
def test_every_reply_has_an_id_and_each_another(served: Served, path: str) -> None:
    ids = {served.client.get(path).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("name", ["a", "req 1/2:3", "~" * 128])
def test_the_clients_id_is_kept(served: Served, name: str) -> None:
    assert served.client.get("/healthz", headers={"x-request-id": name}).headers["x-request-id"] == name


@pytest.mark.parametrize("name", [b"", b"~" * 129, "ä".encode(), b"a\tb"])
def test_an_id_that_is_not_sane_is_replaced(served: Served, name: bytes) -> None:
    found = served.client.get("/healthz", headers={b"x-request-id": name}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", found)
