"""What can be written: items with their embeddings, and deletions. Checked first, then carried out in a transaction.

Checking and encoding happen before the write lock is taken, so that it is held for as short as can be.
Left out: the transaction itself, and which operations share one (`serving.collection.catalogue.sqlite.catalogue`).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apsw
import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Item, check_id, encode_item
from serving.collection.catalogue.metadata import Term, terms_of
from serving.collection.catalogue.sqlite.filter_sql import compile_filter
from serving.collection.catalogue.sqlite.spaces import note_stored
from serving.collection.catalogue.sqlite.vectors import UNIT_TOLERANCE, note_change
from serving.collection.errors import FilterError, ItemError

Outcome = Literal["created", "replaced", "unchanged"]


@dataclass(frozen=True, eq=False)
class Upsert:
    """Store `items` with their embeddings (N, D), float32 of unit norm, by `release`; the same id again replaces."""

    items: Sequence[Item]
    vectors: NDArray[np.float32]
    release: str


@dataclass(frozen=True)
class Delete:
    """Delete the items with these ids, or those that a filter means."""

    ids: Sequence[str] = ()
    where: Filter | None = None


@dataclass(frozen=True)
class Upserted:
    """On disk: the write's sequence number, and for each item in order what became of it."""

    seq: int
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Deleted:
    """On disk: the write's sequence number, how many items are gone, and which of the ids there were not."""

    seq: int
    count: int
    missing: tuple[str, ...]


Operation = Upsert | Delete
Written = Upserted | Deleted
Write = Callable[[apsw.Connection, int], Written]  # within a transaction, under a sequence number


def prepare_write(operation: Operation) -> Write:
    """What carries out the operation. Raises `ItemError` or `FilterError` for what can't be stored or meant."""
    if isinstance(operation, Upsert):
        return _prepare_upsert(operation)
    return _prepare_deletion(operation)


@dataclass(frozen=True)
class _Line:
    """One item ready to be stored."""

    item: Item
    metadata: str
    terms: frozenset[Term]
    vector: bytes

    @property
    def columns(self) -> tuple[object, ...]:
        """All that makes an item replaced rather than unchanged."""
        source = self.item.source
        return (self.item.label, source.path, source.media_type, source.size, source.sha256, self.metadata)


def _prepare_upsert(upsert: Upsert) -> Write:
    vectors = _checked_vectors(upsert)
    if len({item.id for item in upsert.items}) < len(upsert.items):
        names = [item.id for item in upsert.items]
        twice = next(name for name in names if names.count(name) > 1)
        raise ItemError(f"id {twice!r} occurs twice in one upsert: send each item once")
    lines = [
        _Line(item, encode_item(item), terms_of(item.metadata), vector.tobytes())
        for item, vector in zip(upsert.items, vectors, strict=True)
    ]
    release, dim = upsert.release, vectors.shape[1]

    def write(db: apsw.Connection, seq: int) -> Upserted:
        check_dim(db, release, dim)
        now = time.time_ns() // 1_000_000
        rows: list[int] = []
        outcomes: list[Outcome] = []
        changed = False
        for line in lines:
            row, outcome = _store_item(db, line, seq=seq, now=now)
            fresh = _store_vector(db, row, line, release=release, seq=seq)
            rows.append(row)
            outcomes.append("replaced" if fresh and outcome == "unchanged" else outcome)
            changed |= fresh
        if changed:
            note_change(db, release, seq, dim)
        note_stored(db, rows, release=release, seq=seq)
        return Upserted(seq, tuple(outcomes))

    return write


def _prepare_deletion(deletion: Delete) -> Write:
    ids = tuple(dict.fromkeys(deletion.ids))
    for name in ids:
        check_id(name)
    if deletion.where == EVERYTHING:
        raise FilterError("a deletion needs a filter with at least one condition: {} would delete everything")
    if (deletion.where is None) != bool(ids):
        raise FilterError("a deletion needs ids or a filter, and not both")

    def write(db: apsw.Connection, seq: int) -> Deleted:
        if deletion.where is not None:
            condition, parameters = compile_filter(deletion.where)
            rows = [line[0] for line in db.execute(f"SELECT row FROM items WHERE {condition}", parameters)]
            _delete(db, rows, seq)
            return Deleted(seq, len(rows), ())
        found = dict(db.execute("SELECT id, row FROM items WHERE id IN carray(?)", (apsw.carray(ids),)))
        _delete(db, list(found.values()), seq)
        return Deleted(seq, len(found), tuple(name for name in ids if name not in found))

    return write


def _checked_vectors(upsert: Upsert) -> NDArray[np.float32]:
    vectors = np.ascontiguousarray(upsert.vectors, "<f4")
    if not len(upsert.items):
        raise ItemError("an upsert needs at least one item")
    if vectors.ndim != 2 or len(vectors) != len(upsert.items):
        raise ItemError(f"{len(upsert.items)} items came with vectors of shape {vectors.shape}; it must be (items, D)")
    if (wrong := first_not_unit(vectors)) is not None:
        raise ItemError(f"the vector of item {upsert.items[wrong[0]].id!r} has norm {wrong[1]}; it must be 1")
    return vectors


def first_not_unit(vectors: NDArray[np.float32]) -> tuple[int, float] | None:
    """Of vectors (N, D), the place of the first whose norm is not 1, and its norm; None if all are as they must be."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))  # also those that are not finite
    return (int(wrong[0]), float(norms[wrong[0]])) if wrong.size else None


def check_dim(db: apsw.Connection, release: str, dim: int) -> None:
    """Raise `ItemError` unless vectors of `dim` numbers go with those stored of the release."""
    stored = db.execute("SELECT dim FROM changes WHERE release = ? AND dim IS NOT NULL", (release,)).get
    if stored is not None and stored != dim:
        raise ItemError(f"vectors have {dim} numbers; those stored of release {release[:16]} have {stored}")


def _store_item(db: apsw.Connection, line: _Line, *, seq: int, now: int) -> tuple[int, Outcome]:
    query = (
        "SELECT row, EXISTS(SELECT 1 FROM sources WHERE item = row), label, path, media_type, bytes, sha256, metadata "
        "FROM items WHERE id = ?"
    )
    content = line.item.source.content
    found = db.execute(query, (line.item.id,)).fetchone()
    if found is not None and found[2:] == line.columns and bool(found[1]) == (content is not None):
        return int(found[0]), "unchanged"
    if found is None:
        insert = (
            "INSERT INTO items(label, path, media_type, bytes, sha256, metadata, updated, seq, created, id) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING row"
        )
        row = int(db.execute(insert, (*line.columns, now, seq, now, line.item.id)).get)
    else:
        row = int(found[0])
        update = (
            "UPDATE items SET label = ?, path = ?, media_type = ?, bytes = ?, sha256 = ?, metadata = ?, updated = ?, "
            "seq = ? WHERE row = ?"
        )
        db.execute(update, (*line.columns, now, seq, row))
        db.execute("DELETE FROM sources WHERE item = ?", (row,))
        db.execute("DELETE FROM terms WHERE item = ?", (row,))
    if content is not None:
        db.execute("INSERT INTO sources(item, content) VALUES (?, ?)", (row, content))
    db.executemany("INSERT INTO terms(key, value, item) VALUES (?, ?, ?)", [(*term, row) for term in line.terms])
    return row, "created" if found is None else "replaced"


def _store_vector(db: apsw.Connection, row: int, line: _Line, *, release: str, seq: int) -> bool:
    """Whether it differs from what was stored; a vector that does not keeps its number, and every index its place."""
    digest = line.item.source.sha256
    found = db.execute("SELECT sha256, vector FROM vectors WHERE item = ? AND release = ?", (row, release)).fetchone()
    if found == (digest, line.vector):
        return False
    db.execute(
        "INSERT INTO vectors(item, release, seq, sha256, vector) VALUES (?, ?, ?, ?, ?) ON CONFLICT(item, release) "
        "DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256, vector = excluded.vector",
        (row, release, seq, digest, line.vector),
    )
    return True


def _delete(db: apsw.Connection, rows: Sequence[int], seq: int) -> None:
    if not rows:
        return
    chosen = (apsw.carray(np.asarray(rows, np.int64)),)
    releases: list[Any] = db.execute("SELECT DISTINCT release FROM vectors WHERE item IN carray(?)", chosen).fetchall()
    db.execute("INSERT INTO deletions(row, seq) SELECT value, ? FROM carray(?)", (seq, *chosen))
    db.execute("DELETE FROM items WHERE row IN carray(?)", chosen)  # and with them their vectors, sources and terms
    for (release,) in releases:
        note_change(db, release, seq)
