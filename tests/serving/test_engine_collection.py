"""The operations on a collection, without a server: what they answer, and that it is what brute force finds."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.images.decode import ImageError
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.index.faiss.compaction import Policy, compact
from serving.collection.index.interface import Sizes
from serving.collection.snapshots.jobs import Jobs
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.operations.keeping import Keeper
from serving.operations.votes import vote
from serving.protocol.messages import Answer, Mix, NewItem, Picture, Request, RequestError
from tests.conftest import Chain
from tests.disks import small_disk

COLOURS = ("red", "green", "blue")


def answered(engine: Engine, request: Request) -> Answer:
    (answer,) = engine.answer([request])
    assert isinstance(answer, Answer), answer
    return answer


def refused(engine: Engine, request: Request) -> RequestError:
    (answer,) = engine.answer([request])
    assert isinstance(answer, RequestError), answer
    return answer


def new_items(files: list[bytes]) -> tuple[NewItem, ...]:
    return tuple(
        NewItem(f"item{n}", file, f"label{n % 4}", {"n": n, "colour": COLOURS[n % 3], "tags": [f"t{n % 5}"]})
        for n, file in enumerate(files)
    )


@pytest.fixture(scope="module")
def open_engine(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.open(chain.release.folder, tmp_path_factory.mktemp("own"), options=EngineOptions(form="onnx"))


@pytest.fixture
def filled(chain: Chain, open_engine: Engine) -> Iterator[Engine]:
    """An engine whose collection has 60 items; half of them in the base."""
    new = new_items(chain.test_files())
    answered(open_engine, Request("upsert", items=new[:30]))
    assert open_engine.collection is not None
    assert compact(open_engine.collection.catalogue, open_engine.digest)
    answered(open_engine, Request("upsert", items=new[30:]))
    yield open_engine
    answered(open_engine, Request("delete", where=parse_filter({"bytes": {"gte": 0}})))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.05)


def stored(engine: Engine) -> tuple[list[str], np.ndarray]:
    assert engine.collection is not None
    catalogue = engine.collection.catalogue
    rows, vectors = catalogue.vectors.at(catalogue.vectors.census(engine.digest).rows, engine.digest)
    items = catalogue.items.at(rows.tolist())
    return [items[row].id for row in rows.tolist()], vectors.astype(np.float64)


def best(engine: Engine, query: np.ndarray, allowed: list[str], k: int) -> list[str]:
    ids, vectors = stored(engine)
    order = [ids[row] for row in np.argsort(-(vectors @ query), kind="stable")]
    return [name for name in order if name in allowed][:k]


def found(result: dict[str, Any]) -> list[str]:
    return [near["id"] for near in result["neighbours"]]


def test_an_upsert_is_told_item_by_item_and_stores_the_good_ones(chain: Chain, open_engine: Engine) -> None:
    files = chain.test_files()[:3]
    items = (
        NewItem("good", files[0], "cat", {"a": 1}),
        NewItem("broken", files[1][:100]),
        NewItem("too much", files[1], None, {"id": "reserved"}),
        NewItem("fine", files[2]),
    )
    answer = answered(open_engine, Request("upsert", items=items))
    assert [result for result in answer.results if isinstance(result, dict)] == [
        {"id": "good", "outcome": "created"},
        {"id": "fine", "outcome": "created"},
    ]
    assert isinstance(answer.results[1], ImageError)
    assert (answer.results[2].status, "reserved" in str(answer.results[2])) == (400, True)
    again = answered(open_engine, Request("upsert", items=(items[0], NewItem("fine", files[0]))))
    assert [result["outcome"] for result in again.results] == ["unchanged", "replaced"]
    assert again.more["seq"] > answer.more["seq"]
    gone = answered(open_engine, Request("delete", ids=("good", "fine", "never")))
    assert (gone.more["deleted"], gone.more["missing"]) == (2, ["never"])


def test_the_writes_of_a_batch_come_first_and_fail_alone(chain: Chain, open_engine: Engine) -> None:
    files = chain.test_files()[:2]
    answers = open_engine.answer(
        [
            Request("count"),
            Request("upsert", items=(NewItem("a", files[0]),)),
            Request("upsert", items=(NewItem("b", files[1]), NewItem("b", files[1]))),
            Request("get", ids=("a", "b")),
            Request("delete", ids=("\x00",)),
        ]
    )
    assert isinstance(answers[0], Answer)
    assert answers[0].more == {"count": 1}
    assert isinstance(answers[2], RequestError)
    assert (answers[2].status, "occurs twice" in str(answers[2])) == (400, True)
    assert isinstance(answers[3], Answer)
    assert answers[3].results[0]["embedded"]
    assert answers[3].results[1].status == 404
    assert isinstance(answers[4], RequestError)
    answered(open_engine, Request("delete", ids=("a",)))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    "where",
    [
        None,
        {"colour": "red"},
        {"n": {"gte": 10, "lt": 40}},
        {"or": [{"label": "label1"}, {"tags": "t2"}]},
        {"not": {"colour": {"in": ["red", "blue"]}}},
        {"colour": "no such"},
    ],
)
def test_searches_with_filters_are_brute_force(chain: Chain, filled: Engine, where: Any, *, exact: bool) -> None:
    condition = parse_filter(where) if where is not None else None
    assert filled.collection is not None
    items = filled.collection.catalogue.items.page(limit=1000).items
    allowed = [item.id for item in items if condition is None or condition.matches(item)]
    files = tuple(chain.test_files()[:5])
    answer = answered(filled, Request("search", images=files, k=7, where=condition, exact=exact))
    queries = filled.embed_files(files)
    for query, result in zip(queries, answer.results, strict=True):
        assert not isinstance(query, ImageError)
        assert found(result) == best(filled, query.embedding, allowed, 7)


def test_offset_and_least_score_cut_the_same_list(filled: Engine) -> None:
    ids, vectors = stored(filled)
    query = vectors[0].astype(np.float32)
    whole = answered(filled, Request("search", vectors=(query,), k=60)).results[0]["neighbours"]
    assert [near["id"] for near in whole] == best(filled, query, ids, 60)
    part = answered(filled, Request("search", vectors=(query,), k=5, offset=7)).results[0]["neighbours"]
    assert part == whole[7:12]
    least = (whole[10]["score"] + whole[11]["score"]) / 2
    assert answered(filled, Request("search", vectors=(query,), k=60, min_score=least)).results[0]["neighbours"] == [
        near for near in whole if near["score"] >= least
    ]


def test_a_mix_is_near_its_positives_and_away_from_its_negatives(chain: Chain, filled: Engine) -> None:
    ids, vectors = stored(filled)
    file = chain.test_files()[9]
    mix = Mix((ids[0], file, vectors[4].astype(np.float32)), (ids[7], ids[8]))
    (result,) = answered(filled, Request("search", mix=mix, k=6)).results
    of_file = filled.embed_files([file])[0]
    assert not isinstance(of_file, ImageError)
    query = 2 * np.mean([vectors[0], of_file.embedding, vectors[4]], axis=0) - vectors[[7, 8]].mean(axis=0)
    assert found(result) == best(filled, query, [name for name in ids if name not in (ids[0], ids[7], ids[8])], 6)
    assert refused_query(filled, Mix(("unknown",))).status == 404
    ones = np.ones(vectors.shape[1], np.float32)
    assert "cancel each other" in str(refused_query(filled, Mix((ones, -ones))))


def refused_query(engine: Engine, mix: Mix) -> Any:
    return answered(engine, Request("search", mix=mix)).results[0]


@pytest.mark.parametrize("key", ["label", "colour", "tags"])
def test_grouping_gives_the_best_of_each_value(filled: Engine, key: str) -> None:
    _, vectors = stored(filled)
    query = vectors[3].astype(np.float32)
    whole = answered(filled, Request("search", vectors=(query,), k=60, include=frozenset(["metadata"]))).results[0]
    expected: dict[str, str] = {}
    for near in whole["neighbours"]:
        value = near["label"] if key == "label" else near["metadata"][key]
        expected.setdefault(value[0] if isinstance(value, list) else value, near["id"])
    (result,) = answered(filled, Request("search", vectors=(query,), k=60, group_by=key)).results
    assert {near["group"]: near["id"] for near in result["neighbours"]} == expected
    (first,) = answered(filled, Request("search", vectors=(query,), k=2, offset=1, group_by=key)).results
    assert found(first) == found(result)[1:3]


def test_includes(chain: Chain, filled: Engine) -> None:
    file = chain.test_files()[0]
    include = frozenset(["metadata", "vector", "thumbnail", "vote"])
    (result,) = answered(filled, Request("search", images=(file,), k=5, include=include)).results  # type: ignore[arg-type]
    ids, vectors = stored(filled)
    for near in result["neighbours"]:
        assert near["metadata"]["n"] == int(near["id"].removeprefix("item"))
        np.testing.assert_allclose(near["vector"], vectors[ids.index(near["id"])], atol=1e-7)
        assert Image.open(io.BytesIO(near["thumbnail"].content)).format == "JPEG"
    assert result["vote"] == vote(result["neighbours"])
    weights: dict[str, float] = {}
    for near in result["neighbours"]:
        weights[near["label"]] = weights.get(near["label"], 0) + float(np.exp(near["score"] / 0.1))
    assert result["vote"]["label"] == max(weights, key=weights.__getitem__)
    assert result["vote"]["share"] == pytest.approx(max(weights.values()) / sum(weights.values()))
    (classified,) = answered(filled, Request("classify", images=(file,), include=frozenset(["vote"]))).results
    assert classified["vote"]["voters"] == 10
    (item,) = answered(filled, Request("get", ids=("item0",), include=frozenset(["image"]))).results
    assert item["image"] == Picture(file, "image/jpeg")


def test_lists_by_pages_counts_and_stats(filled: Engine) -> None:
    where = parse_filter({"colour": "green"})
    names: list[str] = []
    cursor = None
    while True:
        page = answered(filled, Request("list", where=where, limit=7, cursor=cursor)).more
        names += [item["id"] for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert names == [f"item{n}" for n in range(60) if n % 3 == 1]
    assert answered(filled, Request("count", where=where)).more == {"count": 20}
    stats = answered(filled, Request("stats")).more
    assert (stats["items"], stats["embedded"], stats["labels"]["label1"]) == (60, 60, 15)
    assert stats["index"]["kind"] == "exact"
    assert refused(filled, Request("list", cursor="nonsense")).status == 400


def test_near_duplicates_are_found_from_both_sides(chain: Chain, filled: Engine) -> None:
    files = chain.test_files()
    copies = tuple(NewItem(f"copy{n}", files[0]) for n in range(12))
    answered(filled, Request("upsert", items=copies))
    pairs: set[tuple[str, str]] = set()
    cursor = None
    while True:
        page = answered(filled, Request("duplicates", min_score=0.999, limit=9, cursor=cursor)).more
        pairs |= {(item["id"], other["id"]) for item in page["items"] for other in item["duplicates"]}
        if (cursor := page["cursor"]) is None:
            break
    ids, vectors = stored(filled)
    scores = (vectors @ vectors.T).astype(np.float32)
    near = {(ids[a], ids[b]) for a, b in zip(*np.nonzero(scores >= 0.999), strict=True) if a != b}
    assert pairs == near
    assert ("item0", "copy11") in pairs


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (Request("delete"), 400, "either ids or a filter"),
        (Request("delete", ids=("a",), where=parse_filter({"label": "x"})), 400, "either ids or a filter"),
        (Request("delete", where=parse_filter({})), 400, "would delete everything"),
        (Request("get"), 400, "at least one id"),
        (Request("embed", images=(b"",), where=parse_filter({"label": "x"})), 400, "embed takes no filter"),
        (Request("list", limit=0), 400, "limit is 0; it must be from 1 to 1000"),
        (Request("search", ids=("a",), offset=-1), 400, "offset is -1"),
        (Request("search", ids=("a",), min_score=1.5), 400, "min_score is 1.5"),
        (Request("count", group_by="label"), 400, "count takes no group_by"),
        (Request("search", ids=("a",), include=frozenset(["image"])), 400, "include has 'image'; search accepts"),
        (Request("search", ids=("a",) * 2, k=1000, include=frozenset(["vector"])), 413, "2000 items in one reply"),
        (Request("upsert", items=(NewItem("a", b""),) * 65), 413, "65 images"),
        (Request("get", ids=("a",) * 1001), 413, "1001 ids"),
    ],
)
def test_refusals(filled: Engine, request_: Request, status: int, message: str) -> None:
    refusal = refused(filled, request_)
    assert refusal.status == status
    assert message in str(refusal)


def test_a_damaged_base_is_built_again_when_the_collection_is_opened(chain: Chain, tmp_path: Path) -> None:
    first = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    answered(first, Request("upsert", items=new_items(chain.test_files())))
    assert first.collection is not None
    compact(first.collection.catalogue, first.digest)
    base = first.collection.catalogue.bases.get(first.digest)
    assert base is not None
    content = bytearray((tmp_path / base.file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / base.file).write_bytes(content)
    again = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    ids, vectors = stored(again)
    (result,) = answered(again, Request("search", vectors=(vectors[5].astype(np.float32),), k=9)).results
    assert found(result) == best(again, vectors[5], ids, 9)


def test_the_keeper_compacts_when_enough_has_changed_and_old_bases_go(chain: Chain, tmp_path: Path) -> None:
    engine = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    collection = engine.collection
    assert collection is not None
    keeper = Keeper(collection, Policy(share=0.1, least=10))
    try:
        answered(engine, Request("upsert", items=new_items(chain.test_files())[:20]))
        wait_until(lambda: collection.index.sizes == Sizes(base=20, dead=0, delta=0))
        answered(engine, Request("upsert", items=new_items(chain.test_files())[20:]))
        wait_until(lambda: collection.index.sizes == Sizes(base=60, dead=0, delta=0))
        wait_until(lambda: len(list(tmp_path.glob("*.faiss"))) == 1)
    finally:
        keeper.stop()


def finished_job(engine: Engine, number: str) -> dict[str, Any]:
    def job() -> dict[str, Any]:
        jobs = answered(engine, Request("snapshots")).more["jobs"]
        found: dict[str, Any] = next(one for one in jobs if one["id"] == number)
        return found

    wait_until(lambda: job()["state"] != "running")
    return job()


def test_snapshots_are_saved_and_restored_by_name_while_it_answers(filled: Engine, chain: Chain) -> None:
    begun = answered(filled, Request("snapshot", name="monday")).more["job"]
    assert (begun["what"], begun["name"], begun["state"]) == ("save", "monday", "running")
    assert finished_job(filled, begun["id"])["items"] == 60
    (kept,) = answered(filled, Request("snapshots")).more["snapshots"]
    assert (kept["name"], kept["items"], len(kept["sha256"])) == ("monday", 60, 64)
    assert "file" not in kept
    answered(filled, Request("delete", ids=("item3",)))
    message = refused(filled, Request("restore", name="monday"))
    assert (message.status, "59 items; replace=true" in str(message)) == (409, True)
    begun = answered(filled, Request("restore", name="monday", replace=True)).more["job"]
    assert finished_job(filled, begun["id"])["error"] is None
    (result,) = answered(filled, Request("search", images=(chain.test_files()[3],), k=1)).results
    assert found(result) == ["item3"]
    assert answered(filled, Request("count")).more["count"] == 60


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (Request("snapshot"), 400, "snapshot needs a name"),
        (Request("restore"), 400, "restore needs a name"),
        (Request("snapshot", name="../up"), 400, "can't be called '../up'"),
        (Request("restore", name="/etc/passwd"), 400, "can't be called"),
        (Request("restore", name="never"), 404, "no snapshot 'never'"),
        (Request("snapshot", name="x", replace=True), 400, "takes no replace"),
        (Request("count", name="x"), 400, "takes no name"),
        (Request("snapshots", name="x"), 400, "takes no name"),
        (Request("snapshot", name="x", images=(b"x",)), 400, "takes no images"),
    ],
)
def test_snapshots_that_can_not_be(filled: Engine, request_: Request, status: int, message: str) -> None:
    refusal = refused(filled, request_)
    assert (refusal.status, message in str(refusal)) == (status, True), refusal


def test_one_snapshot_at_a_time(filled: Engine) -> None:
    assert filled.collection is not None
    jobs = Jobs(filled.collection.catalogue.folder)
    with jobs.alone():
        mine = jobs.begin("save", "mine")
        assert refused(filled, Request("snapshot", name="other")).status == 409
        jobs.end(mine.id, items=1)


def test_a_snapshot_that_the_disk_has_no_room_for_is_refused(chain: Chain, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        engine = Engine.open(chain.release.folder, disk / "collection", options=EngineOptions(form="onnx"))
        answered(engine, Request("upsert", items=new_items(chain.test_files()[:3])))
        refusal = refused(engine, Request("snapshot", name="monday"))
        assert (refusal.status, "MiB too little room for snapshot 'monday'" in str(refusal)) == (507, True)
        assert answered(engine, Request("snapshots")).more == {"snapshots": [], "jobs": []}
        assert engine.collection is not None
        engine.collection.index.close()
        engine.collection.catalogue.close()


def test_on_a_full_disk_writes_are_refused_and_reads_go_on(chain: Chain, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        engine = Engine.open(chain.release.folder, disk / "collection", options=EngineOptions(form="onnx"))
        files = chain.test_files()
        acknowledged: list[str] = []
        for number in range(2000):
            new = NewItem(f"item{number}", files[number % len(files)])
            (answer,) = engine.answer([Request("upsert", items=(new,))])
            if isinstance(answer, RequestError):
                break
            acknowledged.append(new.id)
        assert isinstance(answer, RequestError)
        assert (answer.status, str(disk) in str(answer)) == (507, False)
        assert len(acknowledged) > 10
        assert stored(engine)[0] == acknowledged
        (result,) = answered(engine, Request("search", images=(files[3],), k=1)).results
        assert found(result) == ["item3"]
        assert engine.collection is not None
        engine.collection.index.close()
        engine.collection.catalogue.close()
