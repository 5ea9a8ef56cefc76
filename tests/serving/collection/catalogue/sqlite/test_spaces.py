"""Closing a space, whatever SQLite has of it at the moment of a kill; spaces of an older schema."""

from pathlib import Path

import apsw
import numpy as np
import pytest

from serving.collection.catalogue.spaces import Space
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, SqliteCatalogue
from serving.collection.catalogue.sqlite.spaces import forget_space, remove_some
from serving.collection.index.faiss.index import FaissIndex
from tests.serving.collection.catalogue.spaces import fill_all, space_of, waiting
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    RELEASE,
    assert_same,
    brute_force,
    fill,
    item,
    items,
    stored,
    unit_vectors,
)


@pytest.mark.parametrize("steps", range(11))
def test_a_space_that_was_half_closed_can_be_opened_again(both: SqliteCatalogue, steps: int) -> None:
    """Closing is a transaction and then some that each remove a chunk: what is there after any of them is a kill's."""
    fill(both, unit_vectors(12))
    fill_all(both)
    names = fill(both, unit_vectors(9, seed=1), prefix="later")
    both.spaces.fail(OTHER_RELEASE, [(both.spaces.pending(OTHER_RELEASE, limit=1)[0], "no")])
    closing = both.database.connection
    with closing:
        forget_space(closing, OTHER_RELEASE)
    for _ in range(steps):
        with closing:
            remove_some(closing, OTHER_RELEASE, 3)
    both.upsert(
        [item("n0", content=b"replaced"), item("n11", content=b"replaced"), item("new")], unit_vectors(3), RELEASE
    )
    both.delete(["n1", "n10", "later0"])
    current = set(both.vectors.of([f"n{n}" for n in range(12)], OTHER_RELEASE)) - {"n0", "n11"}
    lacking = {f"n{n}" for n in range(12) if n not in (1, 10)} - current | {*names, "new"} - {"later0"}
    opened = both.spaces.open(OTHER_RELEASE)
    assert opened == Space(OTHER_RELEASE, complete=False, pending=len(lacking), failed=0)
    with closing:
        assert remove_some(closing, OTHER_RELEASE, 3)  # who was closing it goes on, and leaves it alone
    assert set(waiting(both)) == lacking
    assert set(both.vectors.of([f"n{n}" for n in range(12)], OTHER_RELEASE)) >= current
    assert fill_all(both) == len(lacking)
    assert space_of(both) == Space(OTHER_RELEASE, complete=True, pending=0, failed=0)
    found = FaissIndex(both, OTHER_RELEASE).search(unit_vectors(2, 8, seed=3), 10)
    assert_same(found, brute_force(*stored(both, OTHER_RELEASE), unit_vectors(2, 8, seed=3), 10))
    assert len(both.vectors.census(OTHER_RELEASE).rows) == both.items.count()


def as_schema_2(folder: Path) -> None:
    """What schema 2 left: the same tables but for those of the spaces."""
    db = apsw.Connection(str(folder / FILE_NAME))
    db.execute("DROP TABLE spaces; DROP TABLE pending; PRAGMA user_version = 2")
    db.close()


def test_of_schema_2_every_release_with_vectors_becomes_a_space(catalogue: SqliteCatalogue) -> None:
    fill(catalogue, unit_vectors(6))
    catalogue.upsert(items(["n1", "n2", "n4"]), unit_vectors(3, 8), OTHER_RELEASE)
    catalogue.upsert([item("n2", content=b"replaced")], unit_vectors(1), RELEASE)
    before = stored(catalogue)
    catalogue.close()
    as_schema_2(catalogue.folder)
    again = SqliteCatalogue(catalogue.folder)
    assert again.spaces.all() == [
        Space(RELEASE, complete=True, pending=0, failed=0),
        Space(OTHER_RELEASE, complete=False, pending=4, failed=0),
    ]
    assert waiting(again) == ["n0", "n3", "n5", "n2"]
    np.testing.assert_array_equal(stored(again)[1], before[1])
    assert again.database.connection.pragma("user_version") == 3
