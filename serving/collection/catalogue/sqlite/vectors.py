"""The vectors of one release as the catalogue has them: by row, by id, and what changed since a sequence number.

Functions on a connection; whoever calls several in one `reading()` block gets answers of one moment.
Left out: searching among them (`serving.collection.index.faiss.neighbours`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from serving.collection.errors import ChangesForgotten

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]
UNIT_TOLERANCE = 1e-3  # how far a norm may be from 1


@dataclass(frozen=True, eq=False)
class Changes:
    """What became of a release's vectors up to write `seq`: those stored anew (N,), (N, D), and the rows deleted.

    Neither is in any order.
    """

    seq: int
    rows: Rows
    vectors: Vectors
    deleted: Rows


@dataclass(frozen=True, eq=False)
class Census:
    """All rows, ascending, that have a vector of the release at write `seq`; D of the vectors."""

    seq: int
    rows: Rows
    dim: int


def note_change(db: apsw.Connection, release: str, seq: int, dim: int | None = None) -> None:
    """Record that write `seq` changed vectors of the release."""
    db.execute(
        "INSERT INTO changes(release, seq, dim, forgotten) VALUES (?, ?, ?, 0) ON CONFLICT(release) DO UPDATE "
        "SET seq = excluded.seq, dim = coalesce(dim, excluded.dim)",
        (release, seq, dim),
    )


def sequence(db: apsw.Connection, release: str) -> int:
    """The number of the last write that changed vectors of the release; 0 if there was none."""
    return int(db.execute("SELECT seq FROM changes WHERE release = ?", (release,)).get or 0)


def dim_of(db: apsw.Connection, release: str) -> int:
    """D of the release's vectors; 0 if there never was one."""
    return int(db.execute("SELECT dim FROM changes WHERE release = ?", (release,)).get or 0)


def census(db: apsw.Connection, release: str) -> Census:
    """Which vectors there are."""
    rows = db.execute("SELECT item FROM vectors WHERE release = ? ORDER BY item", (release,))
    return Census(sequence(db, release), _rows(rows), dim_of(db, release))


def vectors_at(db: apsw.Connection, rows: Rows, release: str, *, until: int | None = None) -> tuple[Rows, Vectors]:
    """Those of `rows` that have a vector, ascending, with their vectors; `until` leaves out what is written later."""
    dim = dim_of(db, release)
    if not len(rows):
        return _rows(()), np.empty((0, dim), np.float32)
    query = "SELECT item, vector FROM vectors WHERE item IN carray(?) AND release = ? AND seq <= ? ORDER BY item"
    chosen = apsw.carray(np.ascontiguousarray(rows, np.int64))
    lines = db.execute(query, (chosen, release, until if until is not None else 2**62))
    return _table(lines, dim, most=len(rows))


def vectors_of(db: apsw.Connection, ids: Sequence[str], release: str) -> dict[str, Vectors]:
    """The stored embedding (D,) of each of `ids` that has one."""
    if not ids:
        return {}
    # CROSS makes SQLite begin with the few items; by itself it begins with all vectors of the release.
    query = "SELECT id, vector FROM items CROSS JOIN vectors ON item = row WHERE id IN carray(?) AND release = ?"
    return {name: np.frombuffer(blob, "<f4") for name, blob in db.execute(query, (apsw.carray(tuple(ids)), release))}


def digests_of(db: apsw.Connection, ids: Sequence[str], release: str) -> dict[str, bytes]:
    """Of each of `ids` that has an embedding, the SHA-256 of the bytes that it was computed from."""
    if not ids:
        return {}
    query = (
        "SELECT id, vectors.sha256 FROM items CROSS JOIN vectors ON item = row WHERE id IN carray(?) AND release = ?"
    )
    return dict(db.execute(query, (apsw.carray(tuple(ids)), release)))


def changes_since(db: apsw.Connection, release: str, since: int) -> Changes:
    """What changed after write `since`; 0 for all there is. Raises `ChangesForgotten` where that is not known."""
    with_deletions = since > 0  # who holds nothing yet has nothing to delete
    forgotten = int(db.execute("SELECT forgotten FROM changes WHERE release = ?", (release,)).get or 0)
    if with_deletions and since < forgotten:
        raise ChangesForgotten(f"deletions up to write {forgotten} are forgotten; asked for those since {since}")
    count = int(db.execute("SELECT count(*) FROM vectors WHERE release = ? AND seq > ?", (release, since)).get)
    query = "SELECT item, vector FROM vectors WHERE release = ? AND seq > ?"
    rows, vectors = _table(db.execute(query, (release, since)), dim_of(db, release), most=count)
    deleted = db.execute("SELECT row FROM deletions WHERE seq > ?", (since,)) if with_deletions else ()
    return Changes(sequence(db, release), rows, vectors, _rows(deleted))


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
