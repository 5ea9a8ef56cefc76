"""What a worker receives reaches the service whole, also where names repeat or bytes are missing."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from core.images.decode import decode
from serving.engine import Engine
from serving.protocol.messages import RequestError
from serving.protocol.parts import Part
from serving.torchserve.launch import Server
from serving.torchserve.parameters import parts_of
from tests.conftest import Chain

FORM = {"content-type": "multipart/form-data; boundary=B"}


def test_a_list_keeps_names_that_repeat_and_a_dictionary_gives_what_it_has() -> None:
    received = [{"name": "image", "value": bytearray(b"%d" % n), "contentType": "image/png"} for n in (1, 2)]
    assert parts_of(received, {}) == [Part("image", b"1", "image/png"), Part("image", b"2", "image/png")]
    fields = {"op": bytearray(b"embed"), "body": bytearray(b"1")}
    assert parts_of(fields, {"Content-Type": "image/png"}) == [Part("op", b"embed"), Part("body", b"1", "image/png")]
    assert parts_of({"body": {"k": 1}}, {}) == [Part("body", b'{"k":1}', "application/json")]


@pytest.mark.parametrize(("length", "whole"), [(2_500, True), (3_100, True), (3_200, False), (1_000_000, False)])
def test_a_form_of_which_too_little_arrived_is_refused(length: int, whole: bool) -> None:
    received = [{"name": "image", "value": bytes(1_100), "contentType": "image/png"}]
    headers = FORM | {"content-length": str(length)}
    assert len(parts_of(received, {"content-length": str(length)})) == 1, "a body of another kind has no parts"
    if whole:
        assert len(parts_of(received, headers)) == 1
    else:
        with pytest.raises(RequestError, match="was cut off"):
            parts_of(received, headers)


@pytest.fixture(scope="module")
def files(chain: Chain) -> list[bytes]:
    return chain.test_files()[:4]


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """TorchServe itself, without the gateway: so is a .mar asked in any TorchServe."""
    assert server.torchserve is not None
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(server.torchserve.socket)), timeout=30) as client:
        yield client


def invoke(server: Server, query: str = "") -> str:
    return f"{server.url}/models/{server.model}/invoke?{query}"


@pytest.mark.parametrize("name", ["image", "files[]"])
def test_files_of_one_name_are_all_embedded(
    server: Server, chain: Chain, engine: Engine, files: list[bytes], http: httpx.Client, name: str
) -> None:
    found = http.post(invoke(server), files=[(name, (f"{n}.jpg", file)) for n, file in enumerate(files)]).json()
    expected = engine.embed(np.stack([decode(file, chain.data.image_size) for file in files])).embedding
    np.testing.assert_allclose([one["embedding"] for one in found["results"]], expected, atol=1e-4)


def test_options_that_repeat_are_heeded_or_refused(server: Server, chain: Chain, http: httpx.Client) -> None:
    first, second, *_ = chain.stored()[0]
    found = http.get(invoke(server, f"op=get&id={first}&id={second}")).json()
    assert [one["id"] for one in found["results"]] == [first, second]
    for reply in (
        http.get(invoke(server, f"op=search&id={first}&k=3&k=5")),
        http.post(invoke(server, "op=search&k=3"), data={"k": "5", "id": first}),
    ):
        assert reply.status_code == 400
        assert "k is given twice, as '3' and as '5'" in reply.json()["error"]["message"]


def test_json_comes_as_it_was_sent(server: Server, http: httpx.Client) -> None:
    reply = http.post(
        invoke(server), content=b'{"op": "count"}', headers={"content-type": "application/json; charset=utf-8"}
    )
    assert reply.json()["count"] > 0
    reply = http.post(
        invoke(server), content=b'{"op": "list", "filter": NaN}', headers={"content-type": "application/json"}
    )
    assert (reply.status_code, "can't be read" in reply.text) == (400, True)


def form(parts: list[tuple[str, bytes]], *, cut: int) -> bytes:
    """A multipart body of files, without its last `cut` bytes."""
    head = b'--B\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = b"".join(head % name.encode() + content + b"\r\n" for name, content in parts) + b"--B--\r\n"
    return body[: len(body) - cut]


def test_a_form_that_was_cut_off_is_refused(server: Server, files: list[bytes], http: httpx.Client) -> None:
    large = b"".join(files) * 4 + bytes(4096)
    for sent in ([("one", files[0]), ("two", large)], [("one", large), ("two", large)]):
        body = form(sent, cut=len(large) // 2)
        reply = http.post(invoke(server), content=body, headers=FORM)
        assert (reply.status_code, reply.json()["error"]["status"]) == (400, 400)
        assert "was cut off" in reply.json()["error"]["message"]


def test_a_megabyte_of_parameters_is_refused(server: Server, http: httpx.Client) -> None:
    for content, kind in [
        (b"a" + b"&a" * 500_000, {"content-type": "application/x-www-form-urlencoded"}),
        (form([("a", b"")] * 10_000, cut=0), FORM),
    ]:
        reply = http.post(invoke(server), content=content, headers=kind)
        assert reply.status_code == 413, reply.text[:200]
        assert "at most 256" in reply.json()["error"]["message"]


def test_what_changes_something_comes_with_a_body(server: Server, chain: Chain, http: httpx.Client) -> None:
    (first, *_), count = chain.stored()[0], http.get(invoke(server, "op=count")).json()["count"]
    for op, rest in [
        ("upsert", "&id=a"),
        ("update", "&id=a&label=x"),
        ("delete", f"&id={first}"),
        ("snapshot", "&name=a"),
        ("restore", "&name=a"),
        ("remove_snapshot", "&name=a"),
    ]:
        for method in ("GET", "POST", "PUT", "DELETE"):
            reply = http.request(method, invoke(server, f"op={op}{rest}"))
            assert (reply.status_code, reply.headers.get("allow")) == (405, "POST"), (method, op, reply.text)
    assert http.get(invoke(server, "op=count")).json()["count"] == count
    assert http.post(invoke(server, "op=delete"), json={"ids": ["nobody's"]}).json()["deleted"] == 0
    assert http.post(invoke(server), data={"op": "delete", "id": "nobody's"}).status_code == 200


def test_no_header_and_no_path_names_an_operation(server: Server, files: list[bytes], http: httpx.Client) -> None:
    address = f"{server.url}/predictions/{server.model}/1"
    assert http.post(address, json={"op": "describe"}).status_code == 200
    for reply in (
        http.get(f"{address}/describe"),
        http.post(f"{address}/embed", content=files[0]),
        http.post(invoke(server), content=files[0], headers={"url_path": "delete"}),
    ):
        assert reply.status_code == 400
        assert "behind the model's names nothing" in reply.json()["error"]["message"]
