import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import faiss
import numpy as np
import pytest

from core.files.durable import sha256_of
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME
from serving.collection.errors import CatalogueError
from serving.collection.index.faiss.index import FaissIndex
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    RELEASE,
    assert_same,
    brute_force,
    item,
    stored,
    unit_vectors,
)

FIRST_TABLES = """
CREATE TABLE items(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, label TEXT, source TEXT, sha256 BLOB NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE vectors(
    item INTEGER NOT NULL REFERENCES items(row) ON DELETE CASCADE, release TEXT NOT NULL, vector BLOB NOT NULL,
    sha256 BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(item, release)
) STRICT;
CREATE INDEX vectors_by_release ON vectors(release, item);
CREATE TABLE bases(
    release TEXT PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL, count INTEGER NOT NULL, dim INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE changes(release TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE TABLE sequence(last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
"""


def first_catalogue(folder: Path, *, base_seq: int = 5) -> np.ndarray:
    """A file as schema 1 left it: 40 items in rows 3, 5, 7..., one release with a base, one without."""
    vectors = unit_vectors(40)
    rows = np.arange(40, dtype=np.int64) * 2 + 3
    db = apsw.Connection(str(folder / FILE_NAME))
    db.pragma("journal_mode", "wal")
    db.execute(FIRST_TABLES)
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        digest = hashlib.sha256(str(row).encode()).digest()
        line = (row, f"old-{row}", "cat" if row % 3 else None, f"/images/{row}.png", digest, 5)
        db.execute("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", line)
        db.execute("INSERT INTO vectors VALUES (?, ?, ?, ?, ?)", (row, RELEASE, vector.tobytes(), digest, 5))
    db.execute("INSERT INTO vectors VALUES (3, ?, ?, ?, 7)", (OTHER_RELEASE, unit_vectors(1, 8).tobytes(), digest))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "first.faiss"))
    np.save(folder / "first.rows.npy", rows)
    digests = f"{sha256_of(folder / 'first.faiss')}:{sha256_of(folder / 'first.rows.npy')}"
    db.execute("INSERT INTO bases VALUES (?, 'first.faiss', ?, 40, 16, ?)", (RELEASE, digests, base_seq))
    db.execute("INSERT INTO changes VALUES (?, 5), (?, 7)", (RELEASE, OTHER_RELEASE))
    db.execute("UPDATE sequence SET last = 8")
    db.pragma("user_version", 1)
    db.close()
    return vectors


def version(folder: Path) -> int:
    db = apsw.Connection(str(folder / FILE_NAME))
    try:
        return int(db.pragma("user_version"))
    finally:
        db.close()


def test_a_new_file_has_the_current_schema(tmp_path: Path) -> None:
    open_catalogue(tmp_path, create=True)
    assert version(tmp_path) == 3


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, though it is long enough to be read as one" * 40)
    with pytest.raises(CatalogueError, match="no usable SQLite file"):
        open_catalogue(tmp_path)


@pytest.mark.parametrize("other", [0, 4, 99])
def test_another_schema_is_refused(tmp_path: Path, other: int) -> None:
    open_catalogue(tmp_path, create=True).close()
    db = apsw.Connection(str(tmp_path / FILE_NAME))
    db.pragma("user_version", other)
    db.close()
    with pytest.raises(CatalogueError, match=f"has schema {other}; this version reads schema 3"):
        open_catalogue(tmp_path)


def test_a_first_catalogue_keeps_items_rows_numbers_vectors_and_its_base(tmp_path: Path) -> None:
    vectors = first_catalogue(tmp_path)
    catalogue = open_catalogue(tmp_path)
    assert version(tmp_path) == 3
    rows, kept = stored(catalogue)
    assert rows.tolist() == list(range(3, 83, 2))
    np.testing.assert_array_equal(kept, vectors)
    item = catalogue.items.get("old-5")
    assert item is not None
    assert (item.row, item.label, item.source.path, item.source.size) == (5, "cat", "/images/5.png", None)
    assert (item.metadata, item.seq, item.source.sha256) == ({}, 5, hashlib.sha256(b"5").digest())
    assert item.created == item.updated > 1_600_000_000_000
    assert catalogue.items.count(parse_filter({"label": None})) == 14
    assert (catalogue.vectors.sequence(RELEASE), catalogue.vectors.sequence(OTHER_RELEASE), catalogue.stats().seq) == (
        5,
        7,
        8,
    )
    neighbours = FaissIndex(catalogue, RELEASE)
    assert neighbours.base is not None
    assert neighbours.base.file == "first.faiss"
    queries = unit_vectors(5, seed=3)
    assert_same(neighbours.search(queries, 10), brute_force(rows, vectors, queries, 10))


def test_after_a_migration_writes_go_on_where_they_were_and_rows_are_new(tmp_path: Path) -> None:
    first_catalogue(tmp_path)
    catalogue = open_catalogue(tmp_path)
    neighbours = FaissIndex(catalogue, RELEASE)
    assert catalogue.delete(["old-81"]).seq == 9
    written = catalogue.upsert([item("old-3"), item("new")], unit_vectors(2, seed=1), RELEASE)
    assert (written.seq, written.outcomes) == (10, ("replaced", "created"))
    assert catalogue.vectors.census(RELEASE).rows.tolist() == [*range(3, 81, 2), 82]  # not 81 again
    rows, vectors = stored(catalogue)
    queries = unit_vectors(5, seed=3)
    assert_same(neighbours.search(queries, 40), brute_force(rows, vectors, queries, 40))


def test_a_base_that_missed_a_write_of_schema_1_is_not_taken_over(tmp_path: Path) -> None:
    first_catalogue(tmp_path, base_seq=4)
    catalogue = open_catalogue(tmp_path)
    assert catalogue.bases.get(RELEASE) is None
    assert len(FaissIndex(catalogue, RELEASE)) == 40


def test_many_may_open_a_first_catalogue_at_once(tmp_path: Path) -> None:
    first_catalogue(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_catalogue(tmp_path), range(4)))
    assert {catalogue.items.count() for catalogue in opened} == {40}


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    first_catalogue(tmp_path)
    db = apsw.Connection(str(tmp_path / FILE_NAME))
    db.execute("DROP TABLE changes")  # as no schema 1 has it
    db.close()
    for _ in range(2):
        with pytest.raises(CatalogueError, match=r"stays as it was: .*no such table: changes"):
            open_catalogue(tmp_path)
    assert version(tmp_path) == 1
