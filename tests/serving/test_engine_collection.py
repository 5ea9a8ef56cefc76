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
from serving.collection.snapshots.named import NamedSnapshots
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.operations.keeping import Keeper
from serving.operations.votes import vote
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import (
    ClassifyRequest,
    CountRequest,
    DeleteRequest,
    DuplicatesRequest,
    Example,
    GetRequest,
    ListRequest,
    NewItem,
    RemoveSnapshotRequest,
    Request,
    RestoreRequest,
    SearchRequest,
    SnapshotRequest,
    SnapshotsRequest,
    StatsRequest,
    UpsertRequest,
)
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
    answered(open_engine, UpsertRequest(items=new[:30]))
    assert open_engine.collection is not None
    assert compact(open_engine.collection.catalogue, open_engine.digest)
    answered(open_engine, UpsertRequest(items=new[30:]))
    yield open_engine
    answered(open_engine, DeleteRequest(filter={"bytes": {"gte": 0}}))


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


def test_an_upsert_answers_item_by_item_and_stores_the_good_ones(chain: Chain, open_engine: Engine) -> None:
    files = chain.test_files()[:3]
    items = (
        NewItem("good", files[0], "cat", {"a": 1}),
        NewItem("broken", files[1][:100]),
        NewItem("too much", files[1], None, {"id": "reserved"}),
        NewItem("fine", files[2]),
    )
    answer = answered(open_engine, UpsertRequest(items=items))
    assert [result for result in answer.results if isinstance(result, dict)] == [
        {"id": "good", "outcome": "created"},
        {"id": "fine", "outcome": "created"},
    ]
    assert isinstance(answer.results[1], ImageError)
    assert (answer.results[2].status, "reserved" in str(answer.results[2])) == (400, True)
    again = answered(open_engine, UpsertRequest(items=(items[0], NewItem("fine", files[0]))))
    assert [result["outcome"] for result in again.results] == ["unchanged", "replaced"]
    assert again.more["seq"] > answer.more["seq"]
    gone = answered(open_engine, DeleteRequest(ids=("good", "fine", "never")))
    assert (gone.more["deleted"], gone.more["missing"]) == (2, ["never"])


def test_the_writes_of_a_batch_come_first_and_fail_alone(chain: Chain, open_engine: Engine) -> None:
    files = chain.test_files()[:2]
    answers = open_engine.answer(
        [
            CountRequest(),
            UpsertRequest(items=(NewItem("a", files[0]),)),
            UpsertRequest(items=(NewItem("b", files[1]), NewItem("b", files[1]))),
            GetRequest(ids=("a", "b")),
            DeleteRequest(ids=("\x00",)),
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
    answered(open_engine, DeleteRequest(ids=("a",)))


def test_what_breaks_among_the_reads_makes_no_write_twice(
    chain: Chain, filled: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deleted` would be 0 and the outcome `unchanged` if the writes were begun again."""
    assert filled.collection is not None
    real, stone = filled.collection.index.search, np.eye(1, filled.manifest.embedding_dim, dtype=np.float32)[0]

    def search(vectors: np.ndarray, *rest: Any, **more: Any) -> Any:
        if (vectors == stone).all(axis=1).any():
            raise OverflowError("stumbled")
        return real(vectors, *rest, **more)

    monkeypatch.setattr(filled.collection.index, "search", search)
    answers = filled.answer(
        [
            DeleteRequest(ids=("item1",)),
            UpsertRequest(items=(NewItem("new", chain.test_files()[3]),)),
            SearchRequest(vectors=(stone.tolist(),)),
            SearchRequest(ids=("item2",), k=1),
            GetRequest(ids=("bad\0id",)),
        ]
    )
    deleted, stored, broken, sound, _ = answers
    assert [type(one) for one in answers[:4]] == [Answer, Answer, RequestError, Answer]
    assert deleted.more["deleted"] == 1  # type: ignore[union-attr]
    assert stored.results[0]["outcome"] == "created"  # type: ignore[union-attr]
    assert broken.status == 500  # type: ignore[union-attr]
    assert len(found(sound.results[0])) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("scale", [1e300, 3e38, 1e-45, 1e-320])
def test_a_finite_vector_of_any_size_is_its_direction(filled: Engine, scale: float) -> None:
    direction = np.eye(1, filled.manifest.embedding_dim)[0]
    mix = (Example(vector=(direction * scale).tolist()),)
    plain = answered(filled, SearchRequest(vectors=(direction.tolist(),), k=5)).results[0]
    scaled = answered(filled, SearchRequest(vectors=((direction * scale).tolist(),), positives=mix, k=5)).results
    assert [found(one) for one in scaled] == [found(plain)] * 2


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
    answer = answered(filled, SearchRequest(images=files, k=7, filter=where, exact=exact))
    queries = filled.embed_files(files)
    for query, result in zip(queries, answer.results, strict=True):
        assert not isinstance(query, ImageError)
        assert found(result) == best(filled, query.embedding, allowed, 7)


def test_offset_and_least_score_cut_the_same_list(filled: Engine) -> None:
    ids, vectors = stored(filled)
    query = vectors[0].astype(np.float32)
    whole = answered(filled, SearchRequest(vectors=(query.tolist(),), k=60)).results[0]["neighbours"]
    assert [near["id"] for near in whole] == best(filled, query, ids, 60)
    part = answered(filled, SearchRequest(vectors=(query.tolist(),), k=5, offset=7)).results[0]["neighbours"]
    assert part == whole[7:12]
    least = (whole[10]["score"] + whole[11]["score"]) / 2
    (above,) = answered(filled, SearchRequest(vectors=(query.tolist(),), k=60, min_score=least)).results
    assert above["neighbours"] == [near for near in whole if near["score"] >= least]


def test_a_mix_is_near_its_positives_and_away_from_its_negatives(chain: Chain, filled: Engine) -> None:
    ids, vectors = stored(filled)
    file = chain.test_files()[9]
    positives = (ids[0], Example(image=file), Example(vector=vectors[4].tolist()))
    (result,) = answered(filled, SearchRequest(positives=positives, negatives=(ids[7], ids[8]), k=6)).results
    of_file = filled.embed_files([file])[0]
    assert not isinstance(of_file, ImageError)
    query = 2 * np.mean([vectors[0], of_file.embedding, vectors[4]], axis=0) - vectors[[7, 8]].mean(axis=0)
    assert found(result) == best(filled, query, [name for name in ids if name not in (ids[0], ids[7], ids[8])], 6)
    assert answered(filled, SearchRequest(positives=("unknown",))).results[0].status == 404
    ones = [1.0] * vectors.shape[1]
    opposite = tuple(Example(vector=vector) for vector in (ones, [-number for number in ones]))
    assert "cancel each other" in str(answered(filled, SearchRequest(positives=opposite)).results[0])


@pytest.mark.parametrize("key", ["label", "colour", "tags"])
def test_grouping_gives_the_best_of_each_value(filled: Engine, key: str) -> None:
    _, vectors = stored(filled)
    query = vectors[3].astype(np.float32)
    whole = answered(filled, SearchRequest(vectors=(query.tolist(),), k=60, include=frozenset(["metadata"]))).results[0]
    expected: dict[str, str] = {}
    for near in whole["neighbours"]:
        value = near["label"] if key == "label" else near["metadata"][key]
        expected.setdefault(value[0] if isinstance(value, list) else value, near["id"])
    (result,) = answered(filled, SearchRequest(vectors=(query.tolist(),), k=60, group_by=key)).results
    assert {near["group"]: near["id"] for near in result["neighbours"]} == expected
    (first,) = answered(filled, SearchRequest(vectors=(query.tolist(),), k=2, offset=1, group_by=key)).results
    assert found(first) == found(result)[1:3]


def test_includes(chain: Chain, filled: Engine) -> None:
    file = chain.test_files()[0]
    request = SearchRequest((file,), k=5, include=frozenset(["metadata", "vector", "thumbnail", "vote"]))
    (result,) = answered(filled, request).results
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
    (classified,) = answered(filled, ClassifyRequest(images=(file,), include=frozenset(["vote"]))).results
    assert classified["vote"]["voters"] == 10
    (item,) = answered(filled, GetRequest(ids=("item0",), include=frozenset(["image"]))).results
    assert item["image"] == Picture(file, "image/jpeg")


def test_lists_by_pages_counts_and_stats(filled: Engine) -> None:
    where = {"colour": "green"}
    names: list[str] = []
    cursor = None
    while True:
        page = answered(filled, ListRequest(filter=where, limit=7, cursor=cursor)).more
        names += [item["id"] for item in page["items"]]
        if (cursor := page["cursor"]) is None:
            break
    assert names == [f"item{n}" for n in range(60) if n % 3 == 1]
    assert answered(filled, CountRequest(filter=where)).more == {"count": 20}
    stats = answered(filled, StatsRequest()).more
    assert (stats["items"], stats["embedded"], stats["labels"]["label1"]) == (60, 60, 15)
    assert stats["index"]["kind"] == "exact"
    assert refused(filled, ListRequest(cursor="nonsense")).status == 400


def test_near_duplicates_are_found_from_both_sides(chain: Chain, filled: Engine) -> None:
    files = chain.test_files()
    copies = tuple(NewItem(f"copy{n}", files[0]) for n in range(12))
    answered(filled, UpsertRequest(items=copies))
    pairs: set[tuple[str, str]] = set()
    cursor = None
    while True:
        page = answered(filled, DuplicatesRequest(min_score=0.999, limit=9, cursor=cursor)).more
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
        (DeleteRequest(), 400, "either ids or a filter"),
        (DeleteRequest(ids=("a",), filter={"label": "x"}), 400, "either ids or a filter"),
        (DeleteRequest(filter={}), 400, "would delete everything"),
        (SearchRequest(ids=("a",) * 2, k=1000, include=frozenset(["vector"])), 413, "2000 items in one reply"),
        (SearchRequest(images=(b"",) * 33, ids=("a",) * 32), 413, "65 images, ids and vectors"),
        (SearchRequest(negatives=("a",)), 400, "negatives without positives"),
        (SearchRequest(positives=(Example(id="a", vector=[1.0]),)), 400, "positive 0 has 2 of id, image and vector"),
        (SearchRequest(positives=("a",), negatives=("b", Example())), 400, "negative 1 has 0 of id, image and vector"),
        (CountRequest(filter={"price": {"near": 3}}), 400, "filter key 'price' has 'near'; accepted: in"),
        (ListRequest(filter=3), 400, "filter is 3; it must be an object"),
    ],
)
def test_refusals(filled: Engine, request_: Request, status: int, message: str) -> None:
    refusal = refused(filled, request_)
    assert refusal.status == status
    assert message in str(refusal)


def test_a_damaged_base_is_built_again_when_the_collection_is_opened(chain: Chain, tmp_path: Path) -> None:
    first = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    answered(first, UpsertRequest(items=new_items(chain.test_files())))
    assert first.collection is not None
    compact(first.collection.catalogue, first.digest)
    base = first.collection.catalogue.bases.get(first.digest)
    assert base is not None
    content = bytearray((tmp_path / base.file).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / base.file).write_bytes(content)
    again = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    ids, vectors = stored(again)
    (result,) = answered(again, SearchRequest(vectors=(vectors[5].tolist(),), k=9)).results
    assert found(result) == best(again, vectors[5], ids, 9)


def test_the_keeper_compacts_when_enough_has_changed_and_old_bases_go(chain: Chain, tmp_path: Path) -> None:
    engine = Engine.open(chain.release.folder, tmp_path, options=EngineOptions(form="onnx"))
    collection = engine.collection
    assert collection is not None
    keeper = Keeper(collection, Policy(share=0.1, least=10))
    try:
        answered(engine, UpsertRequest(items=new_items(chain.test_files())[:20]))
        wait_until(lambda: collection.index.sizes == Sizes(base=20, dead=0, delta=0))
        answered(engine, UpsertRequest(items=new_items(chain.test_files())[20:]))
        wait_until(lambda: collection.index.sizes == Sizes(base=60, dead=0, delta=0))
        wait_until(lambda: len(list(tmp_path.glob("*.faiss"))) == 1)
    finally:
        keeper.stop()


def finished_job(engine: Engine, number: str) -> dict[str, Any]:
    def job() -> dict[str, Any]:
        jobs = answered(engine, SnapshotsRequest()).more["jobs"]
        found: dict[str, Any] = next(one for one in jobs if one["id"] == number)
        return found

    wait_until(lambda: job()["state"] != "running")
    return job()


def test_snapshots_are_saved_and_restored_by_name_while_it_answers(filled: Engine, chain: Chain) -> None:
    begun = answered(filled, SnapshotRequest(name="monday")).more["job"]
    assert (begun["what"], begun["name"], begun["state"]) == ("save", "monday", "running")
    assert finished_job(filled, begun["id"])["items"] == 60
    (kept,) = answered(filled, SnapshotsRequest()).more["snapshots"]
    assert (kept["name"], kept["items"], len(kept["sha256"])) == ("monday", 60, 64)
    assert "file" not in kept
    answered(filled, DeleteRequest(ids=("item3",)))
    message = refused(filled, RestoreRequest(name="monday"))
    assert (message.status, "59 items; replace=true" in str(message)) == (409, True)
    begun = answered(filled, RestoreRequest(name="monday", replace=True)).more["job"]
    assert finished_job(filled, begun["id"])["error"] is None
    (result,) = answered(filled, SearchRequest(images=(chain.test_files()[3],), k=1)).results
    assert found(result) == ["item3"]
    assert answered(filled, CountRequest()).more["count"] == 60
    assert answered(filled, RemoveSnapshotRequest(name="monday")).more == {"removed": "monday"}
    assert answered(filled, SnapshotsRequest()).more["snapshots"] == []


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (SnapshotRequest(name="../up"), 400, "can't be called '../up'"),
        (RestoreRequest(name="/etc/passwd"), 400, "can't be called"),
        (RestoreRequest(name="never"), 404, "no snapshot 'never'"),
        (RemoveSnapshotRequest(name="never"), 404, "no snapshot 'never'"),
        (RemoveSnapshotRequest(name="../up"), 400, "can't be called '../up'"),
    ],
)
def test_snapshots_that_can_not_be(filled: Engine, request_: Request, status: int, message: str) -> None:
    refusal = refused(filled, request_)
    assert (refusal.status, message in str(refusal)) == (status, True), refusal


def test_one_snapshot_at_a_time(filled: Engine) -> None:
    assert filled.collection is not None
    jobs_folder = filled.collection.catalogue.folder
    jobs = Jobs(jobs_folder)
    with jobs.alone():
        mine = jobs.begin("save", "mine")
        assert refused(filled, SnapshotRequest(name="other")).status == 409
        NamedSnapshots(jobs_folder).save(filled.collection.catalogue, "kept")
        assert refused(filled, RemoveSnapshotRequest(name="kept")).status == 409
        jobs.end(mine.id, items=1)


def test_a_snapshot_that_the_disk_has_no_room_for_is_refused(chain: Chain, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        engine = Engine.open(chain.release.folder, disk / "collection", options=EngineOptions(form="onnx"))
        answered(engine, UpsertRequest(items=new_items(chain.test_files()[:3])))
        refusal = refused(engine, SnapshotRequest(name="monday"))
        assert (refusal.status, "MiB too little room for snapshot 'monday'" in str(refusal)) == (507, True)
        assert answered(engine, SnapshotsRequest()).more == {"snapshots": [], "jobs": []}
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
            (answer,) = engine.answer([UpsertRequest(items=(new,))])
            if isinstance(answer, RequestError):
                break
            acknowledged.append(new.id)
        assert isinstance(answer, RequestError)
        assert (answer.status, str(disk) in str(answer)) == (507, False)
        assert len(acknowledged) > 10
        assert stored(engine)[0] == acknowledged
        (result,) = answered(engine, SearchRequest(images=(files[3],), k=1)).results
        assert found(result) == ["item3"]
        assert engine.collection is not None
        engine.collection.index.close()
        engine.collection.catalogue.close()
