"""Vectors of items that were stored before, put into the space that they wait for; or why there is none.

A vector is stored only if its item still waits and still has the bytes that the vector was computed from; whoever
replaces an item meanwhile makes it wait anew. Functions within a transaction.
Left out: which items wait (`serving.collection.catalogue.sqlite.spaces`).
"""

from collections.abc import Sequence

import apsw
import numpy as np

from serving.collection.catalogue.sqlite.spaces import Pending, mark_complete
from serving.collection.catalogue.sqlite.vectors import Rows, Vectors, note_change
from serving.collection.catalogue.sqlite.writes import check_dim, first_not_unit
from serving.collection.errors import ItemError

_STORE = (
    "INSERT INTO vectors(item, release, seq, sha256, vector) SELECT row, ?1, ?2, sha256, ?5 FROM items "
    "WHERE row = ?3 AND sha256 = ?4 AND EXISTS (SELECT 1 FROM pending WHERE release = ?1 AND item = ?3) "
    "AND EXISTS (SELECT 1 FROM spaces WHERE release = ?1) "
    "ON CONFLICT(item, release) DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256, vector = excluded.vector"
)
_FAIL = "UPDATE pending SET error = ? WHERE release = ? AND item = ? AND seq = ? AND error IS NULL"


def checked(rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors) -> Vectors:
    """The vectors (N, D) as they are stored; raises `ItemError` unless there are N of each, all of unit norm."""
    vectors = np.ascontiguousarray(vectors, "<f4")
    if vectors.ndim != 2 or not len(rows) == len(digests) == len(vectors):
        raise ItemError(
            f"{len(rows)} rows came with {len(digests)} digests and vectors of shape {vectors.shape}; "
            "it must be (rows, D)"
        )
    if (wrong := first_not_unit(vectors)) is not None:
        raise ItemError(f"the vector of row {int(rows[wrong[0]])} has norm {wrong[1]}; it must be 1")
    return vectors


def fill(
    db: apsw.Connection, release: str, rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors
) -> int:
    """Store what is still wanted; returns how many that were. The space is complete if nothing waits after it."""
    check_dim(db, release, vectors.shape[1])
    seq = int(db.execute("UPDATE sequence SET last = last + 1 RETURNING last").get)
    stored = 0
    for row, digest, vector in zip(map(int, rows), digests, vectors, strict=True):
        db.execute(_STORE, (release, seq, row, digest, vector.tobytes()))
        if db.changes():
            stored += 1
            db.execute("DELETE FROM pending WHERE release = ? AND item = ?", (release, row))
    if stored:
        note_change(db, release, seq, vectors.shape[1])
    mark_complete(db, release)
    return stored


def fail(db: apsw.Connection, release: str, reasons: Sequence[tuple[Pending, str]]) -> int:
    """Note why items can't be embedded, unless they were written anew since; returns how many that were."""
    failed = 0
    for pending, reason in reasons:
        db.execute(_FAIL, (reason, release, pending.row, pending.seq))
        failed += db.changes()
    mark_complete(db, release)
    return failed
