"""Upserts, updates and deletions in SQLite: prepared first, then carried out in a transaction.

Checking and encoding happen before the write lock is taken, so that it is held for as short a time as possible.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import numpy as np

from serving.collection.catalogue.items import Item, encode_item
from serving.collection.catalogue.metadata import Term, terms_of
from serving.collection.catalogue.sqlite.filter_sql import compile_filter
from serving.collection.catalogue.sqlite.pending import note_stored
from serving.collection.catalogue.sqlite.updates import prepare_update
from serving.collection.catalogue.sqlite.vectors import check_dim, note_change
from serving.collection.catalogue.writes import (
    Delete,
    Deleted,
    Operation,
    Outcome,
    Update,
    Upsert,
    Upserted,
    Written,
    check_deletion,
    check_upsert,
)

Write = Callable[[apsw.Connection, int], Written]  # within a transaction, under a sequence number


def prepare_write(operation: Operation) -> Write:
    """What carries out the operation. Raises `ItemError` or `FilterError` for what can't be stored or meant."""
    if isinstance(operation, Upsert):
        return _prepare_upsert(operation)
    if isinstance(operation, Update):
        return prepare_update(operation)
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
    vectors = check_upsert(upsert)
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
    ids = check_deletion(deletion)

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
