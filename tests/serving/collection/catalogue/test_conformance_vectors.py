"""What every catalogue must do with vectors, their changes, and the bases built from them."""

import hashlib

import numpy as np
import pytest

from serving.collection.catalogue.bases import BaseRecord, Position
from serving.collection.catalogue.interface import Catalogue
from serving.collection.errors import ChangesForgotten
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE, fill, item, items, unit_vectors


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


def test_vectors_at_leaves_out_what_came_later_or_is_not_there(catalogue: Catalogue) -> None:
    vectors = unit_vectors(3)
    fill(catalogue, vectors)
    catalogue.upsert(items(["n1"]), unit_vectors(1, seed=9), RELEASE)
    rows, found = catalogue.vectors.at(np.array([3, 99, 2, 1]), RELEASE, until=1)
    assert rows.tolist() == [1, 3]
    np.testing.assert_array_equal(found, vectors[[0, 2]])
    rows, found = catalogue.vectors.at(np.array([], np.int64), RELEASE)
    assert (rows.size, found.shape) == (0, (0, 16))


def test_a_vector_carries_the_digest_of_the_bytes_it_was_computed_from(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    catalogue.upsert([item("n1", content=b"other")], unit_vectors(1, 8), OTHER_RELEASE)
    of = {name: hashlib.sha256(content).digest() for name, content in (("n0", b"n0"), ("n1", b"n1"))}
    assert catalogue.vectors.digests_of(["n0", "n1", "nothing"], RELEASE) == of  # n1's vector is of its bytes before
    assert catalogue.vectors.digests_of(["n0", "n1"], OTHER_RELEASE) == {"n1": hashlib.sha256(b"other").digest()}
    assert catalogue.vectors.digests_of([], RELEASE) == {}


def test_a_base_is_named_replaced_and_dropped(catalogue: Catalogue) -> None:
    assert (catalogue.bases.get(RELEASE), catalogue.bases.position(RELEASE)) == (None, Position(0, None))
    fill(catalogue, unit_vectors(2))
    assert catalogue.bases.position(RELEASE) == Position(1, None)
    first = BaseRecord(RELEASE, "1.faiss", "0", 2, 16, 1, "ivf", 0.97, {"depth": 8, "by": {"held out": 0.99}})
    catalogue.bases.put(first)
    catalogue.bases.put(BaseRecord(OTHER_RELEASE, "other.faiss", "0", 0, 8, 1))
    assert (catalogue.bases.get(RELEASE), catalogue.bases.position(RELEASE)) == (first, Position(1, "1.faiss", 8))
    assert catalogue.bases.files() == {"1.faiss", "other.faiss"}
    catalogue.bases.put(BaseRecord(RELEASE, "2.faiss", "1", 2, 16, 1))
    assert catalogue.bases.position(RELEASE) == Position(1, "2.faiss")
    catalogue.bases.drop(RELEASE)
    assert (catalogue.bases.get(RELEASE), catalogue.bases.files()) == (None, {"other.faiss"})
