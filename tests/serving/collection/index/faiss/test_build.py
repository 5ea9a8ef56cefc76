from pathlib import Path

import numpy as np
import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.build import build_base
from serving.collection.index.faiss.kinds import KINDS, Plan, selector_of
from serving.collection.index.faiss.mapped_base import MappedBase, open_base
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    RELEASE,
    brute_force,
    clustered_vectors,
    fill,
    items,
    stored,
    unit_vectors,
)
from tests.serving.collection.index.faiss.test_mapped_base import is_mapped

COUNT = 600


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    catalogue = open_catalogue(tmp_path_factory.mktemp("build"), create=True)
    fill(catalogue, clustered_vectors(COUNT + 20))
    catalogue.delete([f"n{number}" for number in range(0, 40, 2)])  # so that rows have gaps
    return catalogue


def build(catalogue: Catalogue, plan: Plan) -> MappedBase:
    return open_base(catalogue.folder, build_base(catalogue, RELEASE, plan))


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_of_any_kind_holds_every_row_is_mapped_and_meets_its_target(filled: Catalogue, kind: str) -> None:
    mapped = build(filled, Plan(kind=kind, recall_target=0.95))
    record = mapped.record
    assert (record.kind, record.count, record.dim, record.seq) == (kind, COUNT, 16, 2)
    assert sorted(mapped.rows.tolist()) == filled.vectors.census(RELEASE).rows.tolist()
    assert (mapped.positions(mapped.rows) == np.arange(COUNT)).all()
    assert is_mapped(record.file)
    assert record.recall >= 0.95
    if kind != "exact":
        assert record.facts["held_out"] == COUNT // 10
        assert record.facts["recall_by_depth"][str(record.facts["depth"])] == round(record.recall, 4)
    rows, vectors = stored(filled)
    queries = clustered_vectors(50, seed=0)
    _, positions = mapped.search(queries, 30, depth=mapped.depth)
    expected = brute_force(rows, vectors, queries, 10).rows
    hits = [np.isin(best, mapped.rows[found]).mean() for best, found in zip(expected, positions, strict=True)]
    assert np.mean(hits) > 0.9


def test_rows_of_an_exact_base_ascend(filled: Catalogue) -> None:
    assert (np.diff(build(filled, Plan()).rows) > 0).all()


def test_the_depth_is_raised_until_the_target_is_met(filled: Catalogue) -> None:
    low = build_base(filled, RELEASE, Plan(kind="ivf", recall_target=0.3)).facts
    high = build_base(filled, RELEASE, Plan(kind="ivf", recall_target=1.0)).facts
    assert low["depth"] < high["depth"]
    tried = [int(depth) for depth in high["recall_by_depth"]]
    assert tried == sorted(tried)
    assert list(high["recall_by_depth"].values())[-1] > high["recall_by_depth"]["1"]
    assert low["recall_by_depth"].items() <= high["recall_by_depth"].items()  # the same seed, the same base


def test_a_target_that_is_out_of_reach_ends_where_going_deeper_gains_nothing(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    vectors = unit_vectors(200, 8)
    far = np.eye(8, dtype=np.float32)[:1]
    near = vectors * np.float32(1e-2) + far  # so close together that 8-bit codes can't tell them apart
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    fill(catalogue, np.concatenate([near, -vectors]))
    record = build_base(catalogue, RELEASE, Plan(kind="hnsw", recall_target=1.0))
    assert record.recall < 1.0
    recalls = {int(depth): recall for depth, recall in record.facts["recall_by_depth"].items()}
    assert max(recalls) < record.count - record.facts["held_out"]
    assert record.facts["depth"] < max(recalls)
    assert record.recall >= max(recalls.values()) - 0.003


def test_a_search_does_not_change_the_index_that_all_share(filled: Catalogue) -> None:
    mapped = build(filled, Plan(kind="ivf"))
    before = mapped._index.nprobe
    mapped.search(unit_vectors(2), 5, depth=7)
    assert mapped._index.nprobe == before
    graph = build(filled, Plan(kind="hnsw"))
    before = graph._index.hnsw.efSearch
    graph.search(unit_vectors(2), 5, depth=300)
    assert graph._index.hnsw.efSearch == before


def test_a_selector_keeps_every_kind_to_what_it_allows(filled: Catalogue) -> None:
    allowed = np.zeros(COUNT, bool)
    allowed[::7] = True
    selector = selector_of(allowed)
    for kind in KINDS:
        mapped = build(filled, Plan(kind=kind))
        _, positions = mapped.search(unit_vectors(5), 40, depth=mapped.deepest, selector=selector)
        assert allowed[positions].all()
        assert (positions >= 0).all()


def test_without_vectors_there_is_nothing_to_build(filled: Catalogue) -> None:
    with pytest.raises(CompactionError, match="no vector of release bbbbbbbbbbbbbbbb to index"):
        build_base(filled, OTHER_RELEASE, Plan())


def test_the_kind_goes_by_size_and_few_are_always_compared_in_full() -> None:
    plan = Plan(exact_up_to=1_000, graph_up_to=5_000)
    assert [plan.choose(count).name for count in (1, 1_000, 1_001, 5_000, 5_001)] == [
        *("exact", "exact", "hnsw", "hnsw", "ivf")
    ]
    assert [Plan(kind="hnsw").choose(count).name for count in (99, 100)] == ["exact", "hnsw"]
    assert Plan().choose(50_000).name == "exact"
    assert Plan().choose(50_001).name == "hnsw"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "lsh"}, "kind is 'lsh'; accepted: auto, exact, hnsw, ivf, ivf_rabitq"),
        ({"recall_target": 95}, "recall_target is 95; it must be above 0"),
        ({"recall_target": 0.0}, "recall_target is 0.0"),
    ],
)
def test_a_plan_that_means_nothing_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Plan(**wrong)  # type: ignore[arg-type]


def test_the_room_a_base_takes_is_known_beforehand(filled: Catalogue) -> None:
    for kind in KINDS:
        record = build_base(filled, RELEASE, Plan(kind=kind))
        size = (filled.folder / record.file).stat().st_size
        assert KINDS[kind].bytes_on_disk(COUNT, 16) == pytest.approx(size, rel=0.1)


def test_what_is_written_while_it_is_built_is_left_to_the_delta(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(150))
    census = catalogue.vectors.census(RELEASE)
    catalogue.upsert(items(["n3", "late"]), unit_vectors(2, seed=5), RELEASE)
    rows, _ = catalogue.vectors.at(np.append(census.rows, 151), RELEASE, until=census.seq)
    assert sorted(set(census.rows.tolist()) - set(rows.tolist())) == [4]
