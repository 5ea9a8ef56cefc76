"""A snapshot is the collection of one moment, and restoring it reaches every worker at once."""

from pathlib import Path

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Space
from serving.collection.errors import CatalogueError
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from tests.serving.collection.catalogue.openers import Opener
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    QUERIES,
    RELEASE,
    assert_same,
    brute_force,
    clustered_vectors,
    cut,
    fill,
    items,
    stored,
    unit_vectors,
)


def listed(catalogue: Catalogue) -> list[object]:
    return [
        (item.id, item.label, item.metadata, item.source, item.created, item.row)
        for item in (catalogue.items.get(one.id, content=True) for one in catalogue.items.page().items)
        if item is not None
    ]


@pytest.fixture
def catalogue(opener: Opener, tmp_path: Path) -> Catalogue:
    made = opener.open(tmp_path / "collection", create=True)
    fill(made, clustered_vectors(40))
    made.upsert(items(["tagged"], colour="red"), unit_vectors(1), RELEASE)
    made.delete(["n3", "n7"])
    return made


def test_a_snapshot_restored_elsewhere_is_the_same_collection(
    catalogue: Catalogue, opener: Opener, tmp_path: Path
) -> None:
    assert catalogue.snapshots.save(tmp_path / "snapshot") == 39
    assert (tmp_path / "snapshot").stat().st_size <= catalogue.snapshots.bytes_needed()
    assert opener.open(tmp_path / "other", create=True).snapshots.restore(tmp_path / "snapshot") == 39
    other = opener.open(tmp_path / "other")
    assert listed(other) == listed(catalogue)
    assert_same(FaissIndex(other, RELEASE).search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))


@pytest.mark.parametrize("kind", ["none", "exact", "hnsw"])
def test_workers_that_are_open_see_what_was_restored_and_later_writes(
    catalogue: Catalogue, tmp_path: Path, kind: str
) -> None:
    catalogue.snapshots.save(tmp_path / "snapshot")
    before = listed(catalogue)
    fill(catalogue, clustered_vectors(300, seed=3), prefix="later")
    if kind != "none":
        compact(catalogue, RELEASE, Plan(kind=kind))
    workers = [FaissIndex(catalogue, RELEASE) for _ in range(2)]
    fill(catalogue, clustered_vectors(20, seed=4), prefix="latest")
    catalogue.delete(["n1"])
    workers[0].refresh()
    last = catalogue.stats().seq
    assert catalogue.snapshots.restore(tmp_path / "snapshot") == 39
    assert listed(catalogue) == before
    assert catalogue.stats().seq > last
    for worker in workers:
        assert_same(worker.search(QUERIES, 50), brute_force(*stored(catalogue), QUERIES, 50))
    fill(catalogue, clustered_vectors(5, seed=5), prefix="new")
    catalogue.delete(["n2"])
    assert max(row for row in stored(catalogue)[0]) > 41 + 300 + 20  # no row is ever used again
    for worker in workers:
        assert_same(worker.search(QUERIES, 50), brute_force(*stored(catalogue), QUERIES, 50))


def test_a_damaged_snapshot_is_refused_and_nothing_changes(catalogue: Catalogue, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    catalogue.snapshots.save(path)
    before = listed(catalogue)
    for _ in range(30):
        cut(path)
    with pytest.raises(CatalogueError, match="snapshot"):
        catalogue.snapshots.restore(path)
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(CatalogueError, match="no usable snapshot"):
        catalogue.snapshots.restore(path)
    with pytest.raises(CatalogueError, match="does not exist"):
        catalogue.snapshots.restore(tmp_path / "absent")
    assert listed(catalogue) == before


def test_a_snapshot_that_can_not_be_written_leaves_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    path = tmp_path / "snapshots/one"
    catalogue.snapshots.save(path)
    content = path.read_bytes()
    catalogue.snapshots.save(path)  # in place of the old one
    assert [file.name for file in path.parent.iterdir()] == ["one"]
    assert path.read_bytes() == content


def test_a_restored_collection_keeps_its_spaces_and_those_of_the_snapshot(opener: Opener, tmp_path: Path) -> None:
    both = opener.open(tmp_path / "both", create=True)
    both.spaces.open(RELEASE)
    both.spaces.open(OTHER_RELEASE)
    fill(both, unit_vectors(4))
    found = both.spaces.pending(OTHER_RELEASE, limit=3)
    both.spaces.fill(OTHER_RELEASE, [one.row for one in found], [one.sha256 for one in found], unit_vectors(3, 8))
    both.snapshots.save(tmp_path / "snapshot")
    (last,) = both.spaces.pending(OTHER_RELEASE, limit=9)
    both.spaces.fill(OTHER_RELEASE, [last.row], [last.sha256], unit_vectors(1, 8))
    third = "c" * 64
    both.spaces.open(third)
    fill(both, unit_vectors(9), prefix="later")
    both.snapshots.restore(tmp_path / "snapshot")
    assert both.spaces.all() == [
        Space(RELEASE, complete=True, pending=0, failed=0),
        Space(OTHER_RELEASE, complete=False, pending=1, failed=0),
        Space(third, complete=False, pending=4, failed=0),
    ]
    assert [one.id for one in both.spaces.pending(OTHER_RELEASE, limit=9)] == ["n3"]
    opener.open(tmp_path / "new", create=True).snapshots.restore(tmp_path / "snapshot")
    assert [space.release for space in opener.open(tmp_path / "new").spaces.all()] == [RELEASE, OTHER_RELEASE]
