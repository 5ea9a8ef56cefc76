"""What can be written: items with their embeddings, updates of labels and metadata, and deletions.

Every catalogue checks them here first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from msgspec import UNSET, UnsetType

from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Item, check_id, check_label
from serving.collection.catalogue.metadata import encode_metadata
from serving.collection.catalogue.vectors import Vectors, first_not_unit
from serving.collection.errors import FilterError, ItemError

Outcome = Literal["created", "replaced", "unchanged"]
UpdateOutcome = Literal["updated", "unchanged", "missing"]


@dataclass(frozen=True, eq=False)
class Upsert:
    """Store `items` with their embeddings (N, D), float32 of unit norm, by `release`; the same id again replaces."""

    items: Sequence[Item]
    vectors: Vectors
    release: str


@dataclass(frozen=True)
class Change:
    """What is to be different of the item `id`; what is unset stays as it is.

    A label of None removes it. `metadata` is a merge patch (`serving.collection.catalogue.metadata.merged`), or with
    `replace` all that the item is to have.
    """

    id: str
    label: str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    replace: bool = False


@dataclass(frozen=True)
class Update:
    """Change labels and metadata of items that are stored; pictures and vectors stay."""

    changes: Sequence[Change]


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
class Updated:
    """On disk: the write's sequence number, and for each change in order what became of it.

    An `ItemError` says why the item stayed as it was: with the patch its metadata would be more than an item may have.
    """

    seq: int
    outcomes: tuple[UpdateOutcome | ItemError, ...]


@dataclass(frozen=True)
class Deleted:
    """On disk: the write's sequence number, how many items are gone, and which of the ids did not exist."""

    seq: int
    count: int
    missing: tuple[str, ...]


Operation = Upsert | Update | Delete
Written = Upserted | Updated | Deleted


def check_upsert(upsert: Upsert) -> Vectors:
    """The vectors (N, D) as they are stored; raises `ItemError` unless each item occurs once and has a unit vector."""
    vectors = np.ascontiguousarray(upsert.vectors, "<f4")
    if not len(upsert.items):
        raise ItemError("an upsert needs at least one item")
    if vectors.ndim != 2 or len(vectors) != len(upsert.items):
        raise ItemError(f"{len(upsert.items)} items came with vectors of shape {vectors.shape}; it must be (items, D)")
    if (wrong := first_not_unit(vectors)) is not None:
        raise ItemError(f"the vector of item {upsert.items[wrong[0]].id!r} has norm {wrong[1]}; it must be 1")
    _check_once([item.id for item in upsert.items], "upsert")
    return vectors


def check_update(update: Update) -> None:
    """Raise `ItemError` unless each item occurs once, and every change can be made to some item."""
    if not len(update.changes):
        raise ItemError("an update needs at least one item")
    for change in update.changes:
        check_change(change)
    _check_once([change.id for change in update.changes], "update")


def check_change(change: Change) -> None:
    """Raise `ItemError` unless the change can be made to some item, and says what it changes."""
    check_id(change.id)
    if change.label is UNSET and change.metadata is UNSET:
        raise ItemError(f"the update of item {change.id!r} has neither a label nor metadata")
    if isinstance(change.label, str):
        check_label(change.id, change.label)
    if change.metadata is not UNSET:
        try:
            encode_metadata(change.metadata)
        except ItemError as error:
            raise ItemError(f"item {change.id!r}: {error}") from error


def check_deletion(deletion: Delete) -> tuple[str, ...]:
    """The ids, each once; raises `ItemError` or `FilterError` unless it says what to delete, and not everything."""
    ids = tuple(dict.fromkeys(deletion.ids))
    for name in ids:
        check_id(name)
    if deletion.where == EVERYTHING:
        raise FilterError("a deletion needs a filter with at least one condition: {} would delete everything")
    if (deletion.where is None) != bool(ids):
        raise FilterError("a deletion needs ids or a filter, and not both")
    return ids


def _check_once(names: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ItemError(f"id {name!r} occurs twice in one {what}: send each item once")
        seen.add(name)
