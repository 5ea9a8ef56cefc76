"""The vectors of each release in SQLite: by row, by id, and what changed since a sequence number."""

from collections.abc import Sequence
from typing import Any

import apsw
import numpy as np

from serving.collection.catalogue.interface import StoredVectors
from serving.collection.catalogue.sqlite.database import Database
from serving.collection.catalogue.vectors import Census, Changes, Rows, Vectors
from serving.collection.errors import ChangesForgotten, ItemError

_LAST = 2**62  # above every sequence number


class SqliteVectors(StoredVectors):
    """The tables `vectors`, `changes` and `deletions`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, ids: Sequence[str], release: str) -> dict[str, Vectors]:
        return {name: np.frombuffer(blob, "<f4") for name, blob in self._columns_of("vector", ids, release)}

    def digests_of(self, ids: Sequence[str], release: str) -> dict[str, bytes]:
        return dict(self._columns_of("vectors.sha256", ids, release))

    def at(self, rows: Rows, release: str, *, until: int | None = None) -> tuple[Rows, Vectors]:
        query = "SELECT item, vector FROM vectors WHERE item IN carray(?) AND release = ? AND seq <= ? ORDER BY item"
        with self._database.reading() as db:
            dim = _dim_of(db, release)
            if not len(rows):
                return _rows(()), np.empty((0, dim), np.float32)
            chosen = apsw.carray(np.ascontiguousarray(rows, np.int64))
            lines = db.execute(query, (chosen, release, until if until is not None else _LAST))
            return _table(lines, dim, most=len(rows))

    def census(self, release: str) -> Census:
        with self._database.reading() as db:
            rows = db.execute("SELECT item FROM vectors WHERE release = ? ORDER BY item", (release,))
            return Census(_sequence(db, release), _rows(rows), _dim_of(db, release))

    def sequence(self, release: str) -> int:
        with self._database.reading() as db:
            return _sequence(db, release)

    def changes_since(self, release: str, since: int) -> Changes:
        query = "SELECT item, vector FROM vectors WHERE release = ? AND seq > ?"
        with_deletions = since > 0  # who holds nothing yet has nothing to delete
        with self._database.reading() as db:
            forgotten = int(db.execute("SELECT forgotten FROM changes WHERE release = ?", (release,)).get or 0)
            if with_deletions and since < forgotten:
                raise ChangesForgotten(
                    f"deletions up to write {forgotten} are forgotten; asked for those since {since}"
                )
            count = int(db.execute(query.replace("item, vector", "count(*)"), (release, since)).get)
            rows, vectors = _table(db.execute(query, (release, since)), _dim_of(db, release), most=count)
            deleted = db.execute("SELECT row FROM deletions WHERE seq > ?", (since,)) if with_deletions else ()
            return Changes(_sequence(db, release), rows, vectors, _rows(deleted))

    def _columns_of(self, column: str, ids: Sequence[str], release: str) -> list[Any]:
        if not ids:
            return []
        # CROSS makes SQLite begin with the few items; by itself it begins with all vectors of the release.
        source = "items CROSS JOIN vectors ON item = row WHERE id IN carray(?) AND release = ?"
        with self._database.reading() as db:
            return db.execute(f"SELECT id, {column} FROM {source}", (apsw.carray(tuple(ids)), release)).fetchall()


def note_change(db: apsw.Connection, release: str, seq: int, dim: int | None = None) -> None:
    """Record that write `seq` changed vectors of the release."""
    db.execute(
        "INSERT INTO changes(release, seq, dim, forgotten) VALUES (?, ?, ?, 0) ON CONFLICT(release) DO UPDATE "
        "SET seq = excluded.seq, dim = coalesce(dim, excluded.dim)",
        (release, seq, dim),
    )


def check_dim(db: apsw.Connection, release: str, dim: int) -> None:
    """Raise `ItemError` unless vectors of `dim` numbers go with those stored of the release."""
    stored = _dim_of(db, release)
    if stored not in (0, dim):
        raise ItemError(f"vectors have {dim} numbers; those stored of release {release[:16]} have {stored}")


def _sequence(db: apsw.Connection, release: str) -> int:
    return int(db.execute("SELECT seq FROM changes WHERE release = ?", (release,)).get or 0)


def _dim_of(db: apsw.Connection, release: str) -> int:
    """D of the release's vectors; 0 if there never was one."""
    return int(db.execute("SELECT dim FROM changes WHERE release = ?", (release,)).get or 0)


def _rows(lines: Any) -> Rows:
    return np.fromiter((line[0] for line in lines), np.int64)


def _table(lines: Any, dim: int, *, most: int) -> tuple[Rows, Vectors]:
    """Rows and vectors of up to `most` lines; each vector is copied once, straight to its place."""
    rows, vectors = np.empty(most, np.int64), np.empty((most, dim), "<f4")
    count = 0
    for count, (row, blob) in enumerate(lines, 1):
        rows[count - 1] = row
        vectors[count - 1] = np.frombuffer(blob, "<f4")
    return rows[:count], vectors[:count]
