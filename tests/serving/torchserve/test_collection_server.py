"""A collection behind the real TorchServe with two workers: what one writes, the other finds."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.durability.http import kill_rounds, stale_reads
from benchmarks.durability.service import Service, draw_pictures
from cli.main import main as simclr
from serving.client.client import Client, NewItem, ServerError
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.commands.snapshot import restore, save
from serving.collection.errors import SnapshotError
from serving.protocol.wire import WORKER_HEADER
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.conftest import Chain, write_files

ROUNDS = 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "collection"


@pytest.fixture(scope="module")
def running(chain: Chain, folder: Path) -> Iterator[Server]:
    """Two workers on a collection that is new."""
    with Server(Settings(chain.archive, collection=folder, port=0, form="onnx", workers=2)) as server:
        yield server


@pytest.fixture
def connected(running: Server) -> Iterator[Client]:
    """A client, and an empty collection."""
    with Client(running.url) as client:
        client.delete(filter={"bytes": {"gte": 0}})
        yield client


@pytest.fixture(scope="module")
def files(chain: Chain) -> list[bytes]:
    return chain.test_files()


def new_items(files: list[bytes]) -> list[NewItem]:
    return [
        {"id": f"item{n}", "image": file, "label": f"label{n % 4}", "metadata": {"n": n, "even": n % 2 == 0}}
        for n, file in enumerate(files)
    ]


def invoke(server: Server, op: str, **options: Any) -> str:
    return str(httpx.URL(f"{server.url}/models/{server.model}/invoke", params={"op": op, **options}))


def put_four_times(pool: ThreadPoolExecutor, http: httpx.Client, address: str, file: bytes) -> list[httpx.Response]:
    """At once, so that both workers get some."""
    return [*pool.map(lambda _: http.put(address, content=file), range(4))]


def test_everything_over_http(running: Server, connected: Client, files: list[bytes]) -> None:
    done = httpx.post(invoke(running, "upsert", id="a/cat", label="pet", metadata='{"year": 2024}'), content=files[0])
    assert done.json()["results"] == [{"id": "a/cat", "outcome": "created"}]
    said = [{"id": "dog", "image": "one"}, {"id": "bad", "image": "two"}]
    form = {"items": json.dumps(said)}
    sent = {"one": files[1], "two": b"no image"}
    results = httpx.post(invoke(running, "upsert"), files=sent, data=form).json()["results"]
    assert results[0] == {"id": "dog", "outcome": "created"}
    assert results[1]["error"]["status"] == 415
    got = httpx.get(invoke(running, "get", id="a/cat")).json()["results"][0]
    assert (got["label"], got["metadata"], got["bytes"]) == ("pet", {"year": 2024}, len(files[0]))
    picture = httpx.get(invoke(running, "get", id="a/cat"), headers={"accept": "image/*"})
    assert (picture.content, picture.headers["content-type"]) == (files[0], "image/jpeg")
    found = httpx.put(
        invoke(running, "search", k=5, filter='{"year": {"gte": 2000}}', include="metadata"), content=files[0]
    ).json()["results"][0]["neighbours"]
    assert [(near["id"], near["metadata"]) for near in found] == [("a/cat", {"year": 2024})]
    assert httpx.get(invoke(running, "list", limit=1)).json()["items"][0]["id"] == "a/cat"
    assert httpx.get(invoke(running, "count")).json()["count"] == 2
    change = {"items": [{"id": "dog", "label": "pet", "metadata": {"year": 1999}}, {"id": "none", "label": "x"}]}
    updated = httpx.post(invoke(running, "update"), json=change).json()["results"]
    assert (updated[0], updated[1]["error"]["status"]) == ({"id": "dog", "outcome": "updated"}, 404)
    facets = httpx.get(invoke(running, "facets", key="label")).json()
    assert facets["facets"] == {"label": [{"value": "pet", "count": 2}]}
    sampled = httpx.get(invoke(running, "sample", count=5, seed=1, filter='{"year": {"lt": 2000}}')).json()["items"]
    assert [one["id"] for one in sampled] == ["dog"]
    assert httpx.get(invoke(running, "stats")).json()["items"] == 2
    assert httpx.post(invoke(running, "delete"), json={"id": "a/cat"}).json()["deleted"] == 1
    assert httpx.get(invoke(running, "get", id="a/cat")).status_code == 404


@pytest.mark.parametrize(
    ("op", "body", "status", "message"),
    [
        ("search", {"id": "x", "filter": {"year": {"about": 3}}}, 400, "filter key 'year' has 'about'"),
        ("search", {"id": "x", "filter": {"label": 3}}, 400, "filter key 'label' is 3; it must be text"),
        ("search", {"id": "no such"}, 404, "no item with id 'no such'"),
        ("upsert", {"image": "aGVsbG8="}, 400, "upsert needs an id"),
        ("upsert", {"id": "x", "image": "aGVsbG8="}, 415, "not an image"),
        ("delete", {"filter": {}}, 400, "would delete everything"),
        ("list", {"cursor": "x"}, 400, "cursor is 'x'"),
    ],
)
def test_errors_name_what_is_wrong(
    running: Server, connected: Client, op: str, body: dict[str, Any], status: int, message: str
) -> None:
    reply = httpx.post(invoke(running, op), json=body)
    assert reply.status_code == status, reply.text
    assert message in reply.json()["error"]["message"]


def test_a_write_through_one_worker_is_seen_by_the_other(
    running: Server, connected: Client, files: list[bytes]
) -> None:
    connected.upsert(new_items(files))
    crossed = 0
    with httpx.Client(timeout=60) as http, ThreadPoolExecutor(4) as pool:
        for number in range(ROUNDS):
            file = files[number % len(files)]
            put = http.post(invoke(running, "upsert", id="moving", label=f"round{number}"), content=file)
            address = invoke(running, "search", k=2, filter=json.dumps({"label": f"round{number}"}))
            replies = put_four_times(pool, http, address, file)
            for reply in replies:
                (near,) = reply.json()["results"][0]["neighbours"]
                assert (near["id"], near["label"]) == ("moving", f"round{number}")
                assert near["score"] == pytest.approx(1, abs=1e-4)
                crossed += reply.headers[WORKER_HEADER] != put.headers[WORKER_HEADER]
            if number % 10 == 9:
                assert http.post(invoke(running, "delete"), json={"id": "moving"}).json()["deleted"] == 1
                replies = put_four_times(pool, http, invoke(running, "search", k=99), file)
                names = [near["id"] for reply in replies for near in reply.json()["results"][0]["neighbours"]]
                assert "moving" not in names
                assert len(names) == 4 * len(files)
    assert crossed > ROUNDS / 2


def test_searches_are_brute_force_over_what_sqlite_has(
    running: Server, connected: Client, folder: Path, files: list[bytes], chain: Chain
) -> None:
    connected.upsert(new_items(files))
    catalogue = open_catalogue(folder)
    rows, vectors = catalogue.vectors.at(catalogue.vectors.census(chain.release.digest).rows, chain.release.digest)
    items = catalogue.items.at(rows.tolist())
    where = {"or": [{"even": True}, {"n": {"lt": 9}}]}
    condition = parse_filter(where)
    allowed = np.array([condition.matches(items[row]) for row in rows.tolist()])
    queries = connected.embed(files[:8]).astype(np.float64)
    for query, result in zip(queries, connected.search(files[:8], k=10, filter=where), strict=True):
        scores = np.where(allowed, vectors.astype(np.float64) @ query, -2)
        expected = np.sort(scores)[::-1][:10]
        near = result["neighbours"]
        np.testing.assert_allclose([one["score"] for one in near], expected, atol=1e-5)
        at = {items[row].id: place for place, row in enumerate(rows.tolist())}
        assert all(allowed[at[one["id"]]] for one in near)
        np.testing.assert_allclose([scores[at[one["id"]]] for one in near], expected, atol=1e-5)


def test_an_update_through_one_worker_is_heeded_by_the_other(
    running: Server, connected: Client, files: list[bytes]
) -> None:
    connected.upsert(new_items(files[:20]))
    crossed = 0
    with httpx.Client(timeout=60) as http, ThreadPoolExecutor(4) as pool:
        for number in range(ROUNDS // 4):
            change = {"items": [{"id": "item3", "label": f"round{number}", "metadata": {"round": number}}]}
            done = http.post(invoke(running, "update"), json=change)
            assert done.json()["results"] == [{"id": "item3", "outcome": "updated"}]
            where = json.dumps({"label": f"round{number}", "round": number})
            replies = put_four_times(pool, http, invoke(running, "search", k=2, filter=where), files[3])
            for reply in replies:
                (near,) = reply.json()["results"][0]["neighbours"]
                assert (near["id"], near["label"]) == ("item3", f"round{number}")
                crossed += reply.headers[WORKER_HEADER] != done.headers[WORKER_HEADER]
    assert crossed > 0


def test_writers_and_searchers_at_once_lose_nothing(running: Server, connected: Client, files: list[bytes]) -> None:
    stop = threading.Event()

    def search() -> int:
        count = 0
        while not stop.is_set():
            (result,) = connected.search([files[0]], k=100)
            scores = [near["score"] for near in result["neighbours"]]
            assert scores == sorted(scores, reverse=True)
            count += 1
        return count

    def write(number: int) -> None:
        items = new_items(files)[number::4]
        for start in range(0, len(items), 3):
            connected.upsert(items[start : start + 3])

    with ThreadPoolExecutor(6) as pool:
        searching = [pool.submit(search) for _ in range(2)]
        for done in [pool.submit(write, number) for number in range(4)]:
            done.result()
        stop.set()
        assert min(future.result() for future in searching) > 0
    assert connected.count() == len(files)
    assert {item["id"] for item in connected.items(page=7)} == {item["id"] for item in new_items(files)}


def test_ingest_goes_on_where_it_was_and_tells_what_it_left_out(
    running: Server, connected: Client, files: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_files(tmp_path / "images", {f"kind{n % 3}/{n}.jpg": file for n, file in enumerate(files)})
    (images / "kind0/broken.jpg").write_bytes(b"no image")
    connected.upsert([{"id": "kind0/0.jpg", "image": files[0], "label": "kind0", "metadata": {"mine": True}}])
    command = ["ingest", "--url", running.url, str(images), "--labels"]
    assert simclr(command) == 0
    printed = capsys.readouterr()
    assert f"{len(files) - 1} sent, 1 unchanged, 1 left out" in printed.out
    assert "left out kind0/broken.jpg: 415" in printed.err
    (images / "kind1/1.jpg").write_bytes(files[2])
    packed = shutil.make_archive(str(tmp_path / "images"), "zip", images)
    assert simclr([*command[:3], packed, "--labels"]) == 0
    assert f"1 sent, {len(files) - 1} unchanged, 1 left out" in capsys.readouterr().out
    assert connected.count() == len(files)
    assert connected.get(["kind0/0.jpg"])[0]["metadata"] == {"mine": True}
    assert connected.get(["kind1/1.jpg"])[0]["label"] == "kind1"


def test_the_command_line(
    running: Server, connected: Client, files: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, *arguments: object) -> str:
        assert simclr([command, "--url", running.url, *map(str, arguments)]) == 0
        return capsys.readouterr().out

    cat = tmp_path / "cat.jpg"
    cat.write_bytes(files[0])
    assert "created" in run("upsert", cat, "--id", "cat", "--label", "pet", "--metadata", '{"year": 2024}')
    connected.upsert([*new_items(files)[1:], {"id": "twin", "image": files[0]}])
    assert run("count", "--filter", '{"label": "pet"}') == "1\n"
    assert run("search", cat, "-k", "1", "--filter", '{"year": 2024}', "--metadata", "--vote").splitlines()[1:] == [
        '  1.0000  cat  pet  {"year": 2024}',
        "  neighbours say pet (100.0%)",
    ]
    (mixed,) = connected.search(positives=["cat"], negatives=["item1"], k=1)  # which one depends on the encoder
    printed = run("search", "--like", "cat", "--unlike", "item1", "-k", "1")
    assert mixed["neighbours"][0]["id"] in printed.splitlines()[1]
    assert run("duplicates", "--min-score", "0.9999").split() == ["cat", "twin"]
    assert len(run("list").splitlines()) == len(files) + 1
    assert json.loads(run("get", "cat"))[0]["label"] == "pet"
    run("get", "cat", "--picture", tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == files[0]
    assert json.loads(run("stats"))["items"] == len(files) + 1
    assert run("update", "cat", "--label", "tabby", "--metadata", '{"year": null}') == "cat\n  updated\n"
    (labels := tmp_path / "labels.csv").write_text("id;label\ncat;tabby\ntwin;tabby\n")
    assert run("label", labels) == "1 item updated, 1 unchanged, 0 unknown\n"
    assert run("facets", "label", "--filter", '{"label": "tabby"}') == "label: 1 value\n        2  tabby\n"
    assert sorted(run("sample", "--filter", '{"label": "tabby"}').split()) == ["cat", "tabby", "tabby", "twin"]
    assert run("delete", "cat", "twin") == "deleted 2\n"


def test_a_snapshot_is_restored_under_a_running_server(
    running: Server, connected: Client, folder: Path, files: list[bytes], tmp_path: Path
) -> None:
    connected.upsert(new_items(files)[:40])
    snapshot = tmp_path / "snapshot.sqlite"
    assert save(folder, snapshot) == 40
    connected.upsert(new_items(files)[40:])
    connected.delete(["item3"])
    with pytest.raises(SnapshotError, match="--replace gives them up"):
        restore(folder, snapshot)
    assert connected.count() == len(files) - 1
    assert restore(folder, snapshot, replace=True) == 40
    for _ in range(6):  # whichever worker answers
        (result,) = connected.search([files[3]], k=100)
        assert {near["id"] for near in result["neighbours"]} == {f"item{n}" for n in range(40)}
        assert result["neighbours"][0]["id"] == "item3"
    assert connected.picture("item3") == files[3]


def test_a_snapshot_is_saved_and_restored_over_http_while_others_write_and_search(
    running: Server, connected: Client, files: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, *arguments: str) -> str:
        assert simclr([command, "--url", running.url, *arguments]) == 0
        return capsys.readouterr().out

    stop = threading.Event()
    acknowledged: list[str] = []

    def write() -> None:
        while not stop.is_set():
            name = f"busy{len(acknowledged)}"
            connected.upsert([{"id": name, "image": files[0]}])
            acknowledged.append(name)
            assert connected.search(ids=[name], k=1)[0]["neighbours"]

    connected.upsert(new_items(files)[:40])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert run("snapshot", "monday").startswith("monday: ")
        during = len(acknowledged)
        stop.set()
        writing.result()
    (kept,) = json.loads(run("snapshot", "--list", "--json"))["snapshots"]
    assert 40 <= kept["items"] <= 40 + during + 1
    connected.delete([f"item{n}" for n in range(40)])
    assert simclr(["restore", "--url", running.url, "monday"]) == 1
    assert "replace=true gives them up" in capsys.readouterr().err
    assert run("restore", "monday", "--replace") == f"monday: {kept['items']} items\n"
    assert connected.count() == kept["items"]
    present = {item["id"] for item in connected.items()}
    assert present == {f"item{n}" for n in range(40)} | set(acknowledged[: kept["items"] - 40])  # one moment of it
    for _ in range(6):  # whichever worker answers
        (result,) = connected.search([files[3]], k=1000)
        assert {near["id"] for near in result["neighbours"]} == present
    assert connected.picture("item3") == files[3]


def test_without_a_collection_it_says_so(chain: Chain) -> None:
    with (
        Server(Settings(chain.archive, port=0, form="onnx", workers=1)) as bare,
        Client(bare.url) as client,
        pytest.raises(ServerError, match=r"409: .* without a collection"),
    ):
        client.stats()


def test_workers_killed_while_they_write_lose_nothing_that_was_acknowledged(
    running: Server, connected: Client, folder: Path, chain: Chain
) -> None:
    service = Service(running, folder, chain.release.space, draw_pictures(chain.release))
    counts = kill_rounds(service, rounds=3, seed=1)
    assert [counts[f"killed while {stage}"] for stage in ("storing", "deleting", "compacting")] == [1, 1, 1]
    assert counts["acknowledged"] > 60
    assert [counts[name] for name in ("acknowledged_lost", "partial_batches", "divergences")] == [0, 0, 0]
    assert counts["searches compared"] > 20
    fresh = stale_reads(service, pairs=20)
    assert (fresh["crossed"] >= 20, fresh["stale"]) == (True, 0)
