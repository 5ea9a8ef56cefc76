import threading

import numpy as np
import pytest

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.errors import ChangesForgotten, FilterError
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE, fill, item, items, unit_vectors


def test_pages_list_every_item_that_stays_once_whatever_is_written_meanwhile(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(20))
    seen: list[str] = []
    cursor = None
    for turn in range(100):
        page = catalogue.items.page(limit=3, cursor=cursor)
        seen += [stored.id for stored in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        catalogue.delete([f"n{turn}"])  # one that was seen, so that what follows moves up
        catalogue.upsert([item(f"n{turn + 10}", label="changed")], unit_vectors(1, seed=turn), RELEASE)
    assert len(seen) == len(set(seen))
    assert set(seen) >= {f"n{number}" for number in range(10, 20)}
    assert catalogue.items.page(limit=1000).cursor is None


def test_pages_keep_to_a_filter_and_end_exactly(catalogue: Catalogue) -> None:
    catalogue.upsert([item(f"n{n}", even=n % 2 == 0) for n in range(8)], unit_vectors(8), RELEASE)
    even = parse_filter({"even": True})
    first = catalogue.items.page(even, limit=2)
    second = catalogue.items.page(even, limit=2, cursor=first.cursor)
    assert [stored.id for stored in (*first.items, *second.items)] == ["n0", "n2", "n4", "n6"]
    assert second.cursor is None
    for cursor in ("", "-1", "x", "1; --", "²", "9" * 30):
        with pytest.raises(FilterError, match="it must be one that an earlier page gave"):
            catalogue.items.page(cursor=cursor)
    for limit in (0, 10_001):
        with pytest.raises(FilterError, match=f"limit is {limit}; it must be from 1 to 10000"):
            catalogue.items.page(limit=limit)


def test_stats(catalogue: Catalogue) -> None:
    catalogue.upsert(items(["a", "b"], label="cat"), unit_vectors(2), RELEASE)
    catalogue.upsert([Item("c", Source.at("/c", b"c"))], unit_vectors(1, 8), OTHER_RELEASE)
    catalogue.bases.put(BaseRecord(RELEASE, "x.faiss", "0", 2, 16, 1, "hnsw", 0.97, {"depth": 64}))
    stats = catalogue.stats()
    assert (stats.items, stats.seq, stats.labels, stats.sources_kept) == (3, 2, {"cat": 2, None: 1}, 2)
    assert stats.bytes_on_disk > 4096
    ours, other = stats.releases
    assert (ours.release, ours.vectors, ours.seq, other.vectors, other.base) == (RELEASE, 2, 1, 1, None)
    assert ours.base == catalogue.bases.get(RELEASE)
    assert ours.base is not None
    assert (ours.base.kind, ours.base.recall, ours.base.facts) == ("hnsw", 0.97, {"depth": 64})


def test_changes_since_tell_what_differs_by_release(catalogue: Catalogue) -> None:
    vectors = unit_vectors(4)
    catalogue.upsert(items(["a", "b", "c"]), vectors[:3], RELEASE)
    catalogue.upsert(items(["a", "d"]), unit_vectors(2, 8), OTHER_RELEASE)
    assert catalogue.vectors.sequence(RELEASE) == 1
    assert catalogue.vectors.changes_since(RELEASE, 1).rows.size == 0
    catalogue.delete(["b", "d"])
    catalogue.upsert(items(["c"]), vectors[3:], RELEASE)
    changes = catalogue.vectors.changes_since(RELEASE, 1)
    assert (changes.seq, changes.rows.tolist(), changes.deleted.tolist()) == (4, [3], [2, 4])
    np.testing.assert_array_equal(changes.vectors, vectors[3:])
    everything = catalogue.vectors.changes_since(RELEASE, 0)
    assert (sorted(everything.rows.tolist()), everything.deleted.tolist()) == ([1, 3], [])
    assert catalogue.vectors.changes_since(OTHER_RELEASE, 2).deleted.tolist() == [2, 4]
    assert catalogue.vectors.changes_since("c" * 64, 0).rows.size == 0


def test_deletions_are_forgotten_one_base_later_and_only_what_every_release_has(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(6))
    catalogue.delete(["n0"])
    catalogue.bases.put(BaseRecord(RELEASE, "1.faiss", "0", 5, 16, 2))
    catalogue.delete(["n1"])
    catalogue.bases.put(BaseRecord(RELEASE, "2.faiss", "0", 4, 16, 3))
    assert catalogue.stats().deletions_on_record == 1
    assert catalogue.vectors.changes_since(RELEASE, 2).deleted.tolist() == [2]  # for who still has the first base
    with pytest.raises(ChangesForgotten, match="up to write 2 are forgotten; asked for those since 1"):
        catalogue.vectors.changes_since(RELEASE, 1)
    catalogue.upsert(items(["n2"]), unit_vectors(1, 8), OTHER_RELEASE)
    catalogue.delete(["n3"])
    catalogue.bases.put(BaseRecord(RELEASE, "3.faiss", "0", 3, 16, 5))
    catalogue.bases.put(BaseRecord(RELEASE, "4.faiss", "0", 3, 16, 5))
    assert catalogue.stats().deletions_on_record == 2  # the other release has no base: it may need them


def test_reading_is_of_one_moment(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    with catalogue.reading():
        assert catalogue.items.count() == 2
        writer = threading.Thread(target=lambda: fill(catalogue, unit_vectors(3, seed=1), prefix="m"))
        writer.start()
        writer.join()
        assert catalogue.items.count() == 2
        with catalogue.reading():
            assert catalogue.vectors.census(RELEASE).seq == 1
    assert catalogue.items.count() == 5


def test_vectors_at_leaves_out_what_came_later_or_is_not_there(catalogue: Catalogue) -> None:
    vectors = unit_vectors(3)
    fill(catalogue, vectors)
    catalogue.upsert(items(["n1"]), unit_vectors(1, seed=9), RELEASE)
    rows, found = catalogue.vectors.at(np.array([3, 99, 2, 1]), RELEASE, until=1)
    assert rows.tolist() == [1, 3]
    np.testing.assert_array_equal(found, vectors[[0, 2]])
    rows, found = catalogue.vectors.at(np.array([], np.int64), RELEASE)
    assert (rows.size, found.shape) == (0, (0, 16))
