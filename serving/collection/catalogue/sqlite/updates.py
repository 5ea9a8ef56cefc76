"""Updates of labels and metadata in SQLite: prepared first, then carried out in a transaction.

What a patch makes of an item is only known there, where nobody else can write.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import apsw
from msgspec import UNSET

from serving.collection.catalogue.metadata import Term, encode_metadata, merged, terms_of
from serving.collection.catalogue.writes import Change, Update, Updated, UpdateOutcome, check_update
from serving.collection.errors import ItemError


class _Found(NamedTuple):
    """An item as it is stored; its metadata as JSON text."""

    row: int
    label: str | None
    metadata: str


def prepare_update(update: Update) -> Callable[[apsw.Connection, int], Updated]:
    """What carries out the update. Raises `ItemError` for what can be made of no item."""
    check_update(update)
    ids = tuple(change.id for change in update.changes)

    def write(db: apsw.Connection, seq: int) -> Updated:
        now = time.time_ns() // 1_000_000
        lines = db.execute("SELECT id, row, label, metadata FROM items WHERE id IN carray(?)", (apsw.carray(ids),))
        found = {line[0]: _Found(*line[1:]) for line in lines}
        outcomes = [_change(db, found.get(one.id), one, seq=seq, now=now) for one in update.changes]
        return Updated(seq, tuple(outcomes))

    return write


def _replace_terms(db: apsw.Connection, row: int, terms: Iterable[Term]) -> None:
    """What filters look at of an item."""
    db.execute("DELETE FROM terms WHERE item = ?", (row,))
    db.executemany("INSERT INTO terms(key, value, item) VALUES (?, ?, ?)", [(*term, row) for term in terms])


def _change(
    db: apsw.Connection, found: _Found | None, change: Change, *, seq: int, now: int
) -> UpdateOutcome | ItemError:
    if found is None:
        return "missing"
    try:
        changed = _changed(found, change)
    except ItemError as error:
        return ItemError(f"item {change.id!r} would not be as an item must be: {error}")
    if changed == found:
        return "unchanged"
    db.execute(
        "UPDATE items SET label = ?, metadata = ?, updated = ?, seq = ? WHERE row = ?",
        (changed.label, changed.metadata, now, seq, changed.row),
    )
    if changed.metadata != found.metadata:
        _replace_terms(db, changed.row, terms_of(json.loads(changed.metadata)))
    return "updated"


def _changed(found: _Found, change: Change) -> _Found:
    label = found.label if change.label is UNSET else change.label
    if change.metadata is UNSET:
        return found._replace(label=label)
    metadata = change.metadata if change.replace else merged(json.loads(found.metadata), change.metadata)
    return found._replace(label=label, metadata=encode_metadata(metadata))
