"""Every route of the table over HTTP, on real images and a collection that these tests may change.

Each reply is held against what `GET /openapi.json` says of it, and the last test that no route was left out.
"""

import base64
import gzip
import hashlib
import io
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import httpx
import jsonschema
import numpy as np
import pytest
from PIL import Image

from serving.gateway.access.options import AccessOptions
from serving.gateway.addresses import ROUTES
from serving.gateway.interpreter import Interpreter
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.conftest import Chain

HERE = "/v1/collections/{collection}"
ITEMS, ITEM = f"{HERE}/items", f"{HERE}/items/{{id}}"
SNAPSHOT = f"{HERE}/snapshots/{{name}}"
ODD_IDS = [
    "plain",
    "a/b.jpg",
    "100%",
    "a%2Fb",
    "two words",
    "é/猫",
    "..",
    ".",
    "get",
    "delete",
    "?a=b&c#d",
    "+",
    "'\";",
]
JSON = "application/json"


class Asker:
    """Asks at the addresses of the table, and holds each reply against the OpenAPI document."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.document = http.get("/openapi.json").json()
        self.asked: set[tuple[str, str]] = set()

    def __call__(self, method: str, path: str, *, status: int = 200, **request: Any) -> httpx.Response:
        """Ask at the path of a route; `id`, `name` and `job` are put into it."""
        for name in re.findall(r"\{(\w+)\}", path):
            value = "default" if name == "collection" else request.pop(name)
            request["at"] = request.get("at", path).replace(f"{{{name}}}", segment(value))
        reply = self.http.request(method, request.pop("at", path), **request)
        assert reply.status_code == status, (method, path, reply.text)
        self.asked.add((method, path))
        self._hold(reply, self.document["paths"][path][method.lower()]["responses"])
        return reply

    def _hold(self, reply: httpx.Response, described: dict[str, Any]) -> None:
        content = described.get(str(reply.status_code), described["default"])["content"]
        kind = reply.headers["content-type"].partition(";")[0]
        assert kind in content or f"{kind.partition('/')[0]}/*" in content
        if kind == JSON:
            schema = content[JSON]["schema"]
            jsonschema.validate(reply.json(), {"components": self.document["components"], **schema})


def segment(text: str) -> str:
    """A text as one segment of a path, which no client takes for a step up."""
    return "".join("%2E" if one == "." else quote(one, safe="") for one in text)


@pytest.fixture(scope="module")
def ask(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    folder = tmp_path_factory.mktemp("routes") / "collection"
    shutil.copytree(chain.collection, folder)
    access = AccessOptions(keys=str(folder / "no-keys.json"))
    with (
        Server(Settings(chain.archive, collection=folder, port=0, form="onnx", workers=1, access=access)) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=60) as http,
    ):
        yield Asker(http)


@pytest.fixture(scope="module")
def files(chain: Chain) -> list[bytes]:
    return chain.test_files()[:4]


def test_images_come_in_any_body(ask: Asker, files: list[bytes]) -> None:
    one, two = files[:2]
    text = base64.b64encode(one).decode()
    bodies: list[dict[str, Any]] = [
        {"content": one},
        {"content": one, "headers": {"content-type": "application/x-www-form-urlencoded"}},  # as curl --data-binary
        {"content": one, "headers": {"content-type": "image/jpeg"}},
        {"content": gzip.compress(one), "headers": {"content-encoding": "gzip"}},
        {"content": iter([one[:100], one[100:]])},  # chunked
        {"files": {"image": one}},
        {"json": {"image": text}},
        {"json": {"images": [f"data:image/jpeg;base64,{text}"]}},
    ]
    found = [ask("POST", "/v1/embed", **body).json()["results"][0]["embedding"] for body in bodies]
    np.testing.assert_allclose(found, np.tile(found[0], (len(found), 1)), atol=1e-5)
    both = ask("POST", "/v1/embed", files=[("image", one), ("image", two)], headers={"accept": "application/x-npy"})
    array = np.load(io.BytesIO(both.content), allow_pickle=False)
    np.testing.assert_allclose(array[0], found[0], atol=1e-5)
    raw = ask("POST", "/v1/embed", content=one, headers={"accept": "application/octet-stream"})
    np.testing.assert_array_equal(np.frombuffer(raw.content, "<f4"), array[0].astype("<f4"))
    for encoding in ("base64", "float16", "int8", "binary"):
        ask("POST", "/v1/embed", content=one, params={"encoding_format": encoding, "include": "logits"})


def test_labels_and_neighbours_of_images(ask: Asker, files: list[bytes]) -> None:
    assert ask("GET", "/v1/describe").json()["release"] == "chain/1"
    (result,) = ask("POST", "/v1/classify", content=files[0], params={"include": "vote"}).json()["results"]
    assert result["label"] in result["probabilities"]
    for path in ("/v1/search", f"{HERE}/search"):
        options = {"k": 3, "include": "metadata,vote,thumbnail,vector", "group_by": "label"}
        results = ask("POST", path, files=[("image", one) for one in files], params=options).json()["results"]
        assert [len(one["neighbours"]) for one in results] == [3] * 4
    examples = {"positives": [results[0]["neighbours"][0]["id"]], "k": 1, "filter": {"label": "cat"}}
    (found,) = ask("POST", f"{HERE}/search", json=examples).json()["results"]
    assert found["neighbours"][0]["label"] == "cat"


@pytest.mark.parametrize("id", ODD_IDS)
def test_an_item_of_any_id_has_its_address(ask: Asker, files: list[bytes], id: str) -> None:
    created = ask("PUT", ITEM, id=id, content=files[0], params={"label": "pet"}, status=201)
    assert (created.json()["id"], created.json()["outcome"]) == (id, "created")
    assert unquote(created.headers["location"].rpartition("/")[2]) == id
    again = {"image": base64.b64encode(files[0]).decode(), "label": "pet", "metadata": {"a": 1, "b": {"c": 2, "d": 3}}}
    assert ask("PUT", ITEM, id=id, json=again).json()["outcome"] == "replaced"
    patch = {"label": None, "metadata": {"a": None, "b": {"c": 4}}}
    assert ask("PATCH", ITEM, id=id, json=patch).json()["outcome"] == "updated"
    merge: dict[str, Any] = {
        "content": b'{"metadata":{"e":5}}',
        "headers": {"content-type": "application/merge-patch+json"},
    }
    assert ask("PATCH", ITEM, id=id, **merge).json()["outcome"] == "updated"
    item = ask("GET", ITEM, id=id, params={"include": "vector,thumbnail,image"}).json()
    assert (item["id"], item["label"], item["metadata"]) == (id, None, {"b": {"c": 4, "d": 3}, "e": 5})
    assert ask("GET", f"{ITEM}/image", id=id).content == files[0]
    assert Image.open(io.BytesIO(ask("GET", f"{ITEM}/thumbnail", id=id).content)).format == "JPEG"
    head = ask.http.head(f"/v1/collections/default/items/{segment(id)}")
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", JSON)
    assert ask("DELETE", ITEM, id=id).json()["deleted"] == 1
    for method in ("GET", "DELETE"):
        assert ask(method, ITEM, id=id, status=404).json()["error"]["message"] == f"no item with id {id!r}"


def test_many_items_at_once(ask: Asker, files: list[bytes]) -> None:
    items = '[{"id":"m/1","image":"a","label":"one"},{"id":"m/2","image":"b","metadata":{"n":2}}]'
    stored = ask("POST", ITEMS, files={"a": files[0], "b": files[1]}, data={"items": items}).json()
    assert [one["outcome"] for one in stored["results"]] == ["created", "created"]
    changes = {"items": [{"id": "m/1", "label": "uno"}, {"id": "none", "label": "x"}]}
    results = ask("PATCH", ITEMS, json=changes).json()["results"]
    assert (results[0]["outcome"], results[1]["error"]["status"]) == ("updated", 404)
    by_query = ask("GET", ITEMS, params=[("id", "m/1"), ("id", "m/2")]).json()["results"]
    assert by_query == ask("POST", f"{ITEMS}/get", json={"ids": ["m/1", "m/2"]}).json()["results"]
    assert [one["label"] for one in by_query] == ["uno", None]
    page = ask("GET", ITEMS, params={"limit": 1, "filter": '{"n":{"gte":2}}'}).json()
    assert [one["id"] for one in page["items"]] == ["m/2"]
    assert page == ask("POST", f"{ITEMS}/list", json={"limit": 1, "filter": {"n": {"gte": 2}}}).json()
    first = ask("GET", ITEMS, params={"limit": 200}).json()
    rest = ask("GET", ITEMS, params={"limit": 200, "cursor": first["cursor"]}).json()
    assert len(first["items"]) + len(rest["items"]) == ask("GET", HERE).json()["items"]
    assert ask("DELETE", ITEMS, params=[("id", "m/1"), ("id", "none")]).json()["missing"] == ["none"]
    assert ask("POST", f"{ITEMS}/delete", json={"filter": {"n": 2}}).json()["deleted"] == 1


def test_labels_from_a_table(ask: Asker, files: list[bytes]) -> None:
    for name in ("t/1", "t/2"):
        ask("PUT", ITEM, id=name, content=files[0], params={"label": "before"}, status=201)
    table = b"name\tclass\nt/1\tcat\nt/2\t\nno/such\tdog\n"
    columns = {"id_column": "name", "label_column": "class"}
    raw = ask("POST", f"{HERE}/labels", content=table, params=columns).json()
    assert (raw["updated"], raw["empty"], raw["unknown"], raw["unknown_ids"]) == (1, 1, 1, ["no/such"])
    file = ask("POST", f"{HERE}/labels", files={"table": table}, data={**columns, "remove_empty": "true"}).json()
    assert (file["updated"], file["unchanged"], file["empty"]) == (1, 1, 0)
    many = "id,label\n" + "".join(f"n/{number},x\n" for number in range(2500)) + "t/1,last\n"
    sent = ask("POST", f"{HERE}/labels", content=many.encode(), headers={"content-type": "text/csv"}).json()
    assert (sent["updated"], sent["unknown"], len(sent["unknown_ids"])) == (1, 2500, 20)
    labels = [ask("GET", ITEM, id=name).json()["label"] for name in ("t/1", "t/2")]
    assert labels == ["last", None]
    ask("DELETE", ITEMS, params={"id": ["t/1", "t/2"]})


def test_figures_by_get_and_by_post(ask: Asker) -> None:
    cats: dict[str, dict[str, Any]] = {
        "POST": {"json": {"filter": {"label": "cat"}}},
        "GET": {"params": {"filter": '{"label":"cat"}'}},
    }
    for method, how in cats.items():
        assert ask(method, f"{HERE}/count", **how).json()["count"] == 24
        assert ask(method, f"{HERE}/duplicates", **how).json()["min_score"] == 0.98
        sample = ask(method, f"{HERE}/sample", **how).json()["items"]
        assert {one["label"] for one in sample} == {"cat"}
    by_key = ask("GET", f"{HERE}/facets", params=[("key", "label"), ("key", "n")]).json()
    assert by_key == ask("POST", f"{HERE}/facets", json={"keys": ["label", "n"]}).json()
    assert by_key["distinct"] == {"label": 10, "n": 0}
    assert ask("GET", HERE).json()["items"] == ask("GET", f"{HERE}/stats", params={"include": "drift"}).json()["items"]
    assert ask("GET", "/v1/collections").json() == {"collections": [{"name": "default", "items": 240}]}


def test_snapshots_and_their_jobs(ask: Asker) -> None:
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", SNAPSHOT, {}),
        ("POST", f"{SNAPSHOT}/restore", {"json": {"replace": True}}),
    ]
    for method, path, options in ways:
        job = ask(method, path, name="jobs", **options).json()["job"]
        deadline = time.monotonic() + 60
        while job["state"] == "running" and time.monotonic() < deadline:
            job = ask("GET", f"{HERE}/snapshots/jobs/{{job}}", job=job["id"]).json()["job"]
        assert (job["state"], job["name"]) == ("done", "jobs")
    kept = ask("GET", f"{HERE}/snapshots").json()
    assert "jobs" in [one["name"] for one in kept["snapshots"]]
    assert sorted(one["what"] for one in kept["jobs"] if one["name"] == "jobs") == ["restore", "save"]
    assert ask("DELETE", SNAPSHOT, name="jobs").json()["removed"] == "jobs"
    assert "no job 'none'" in ask("GET", f"{HERE}/snapshots/jobs/{{job}}", job="none", status=404).text


def test_another_collection_is_not_there(ask: Asker) -> None:
    for route in ROUTES:
        if "{collection}" in route.path:
            address = re.sub(r"\{\w+\}", "other", route.path)
            reply = ask.http.request(route.method, address)
            assert (reply.status_code, route.path) == (404, route.path)
            assert reply.json()["error"]["message"] == "there is no collection 'other'; this server has 'default'"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "says"),
    [
        ("GET", f"{HERE}/nothing", {}, 404, "GET /openapi.json lists what there is"),
        ("GET", f"{HERE}/items/%FF", {}, 400, "'%FF' in the path is not UTF-8"),
        ("PUT", f"{HERE}/items/a?id=b", {"content": b"x"}, 400, "id is said by the path already, as 'a'"),
        ("PATCH", f"{HERE}/items/a", {"json": {"id": "b"}}, 400, "leave id and items out elsewhere"),
        ("PATCH", f"{HERE}/items/a", {"json": {"lable": "b"}}, 400, "'lable' is no option of update"),
        ("POST", f"{HERE}/items/get", {"json": {"op": "delete", "ids": ["a"]}}, 400, "leave op out"),
        ("GET", f"{HERE}/facets", {}, 400, "facets needs at least one key"),
        ("GET", f"{HERE}/count?filter=cat", {}, 400, "filter, which is JSON, can't be read"),
        ("GET", f'{HERE}/count?filter={{"a":{2**64}}}', {}, 400, "whole numbers go from -2^63 to 2^64 - 1"),
        (
            "PATCH",
            f"{HERE}/items/a",
            {"json": {"metadata": {"a": [-(2**63) - 1]}}},
            400,
            "items has -9223372036854775809",
        ),
        ("GET", f"{HERE}/sample?count=0", {}, 400, "count is '0'; it must be a whole number from 1 to 256"),
        ("POST", f"{HERE}/labels", {"content": b"a,b\n1,2\n"}, 400, "one of them must be 'id'"),
        ("POST", f"{HERE}/labels?columns=a", {"content": b"id,label\n"}, 400, "labels takes id_column, label_column"),
        ("POST", f"{HERE}/labels", {}, 400, "labels takes one table"),
        ("POST", "/v1/embed", {"content": b"no image"}, 415, "image"),
        ("POST", "/v1/embed", {"content": b"x", "headers": {"accept": "image/png"}}, 406, "comes as application/json"),
    ],
)
def test_an_error_names_the_remedy(
    ask: Asker, method: str, path: str, options: dict[str, Any], status: int, says: str
) -> None:
    reply = ask.http.request(method, path.replace("{collection}", "default"), **options)
    assert reply.status_code == status, reply.text
    assert says in reply.json()["error"]["message"]
    assert reply.json()["error"]["status"] == status


def test_which_methods_an_address_has(ask: Asker) -> None:
    address = "/v1/collections/default/items/a"
    methods = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    asked = ask.http.request("OPTIONS", address)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, methods, b"")
    refused = ask.http.post(address)
    assert (refused.status_code, refused.headers["allow"]) == (405, methods)
    assert methods in refused.json()["error"]["message"]


def test_the_page_needs_nothing_else(ask: Asker) -> None:
    page = ask("GET", "/docs")
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert not re.search(r"<script|<link|<img|src=|https?://|style=|\son\w+=", page.text)
    shown = {*re.findall(r'<b class="method">(\w+)</b> <code>(.*?)</code>', page.text)}
    assert shown == {(route.method, route.path) for route in ROUTES if route.listed}


def test_what_needs_no_worker(ask: Asker) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        ask("GET", path)


def test_every_route_was_asked(ask: Asker) -> None:
    """But for the dialects', which `test_interpreter` asks."""
    ours = {(one.method, one.path) for one in ROUTES if one.listed and not isinstance(one.endpoint, Interpreter)}
    assert ours - ask.asked == set()
