"""What can be written: items with their embeddings, and deletions. Every catalogue checks them here first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Item, check_id
from serving.collection.catalogue.vectors import Vectors, first_not_unit
from serving.collection.errors import FilterError, ItemError

Outcome = Literal["created", "replaced", "unchanged"]


@dataclass(frozen=True, eq=False)
class Upsert:
    """Store `items` with their embeddings (N, D), float32 of unit norm, by `release`; the same id again replaces."""

    items: Sequence[Item]
    vectors: Vectors
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
    """On disk: the write's sequence number, how many items are gone, and which of the ids did not exist."""

    seq: int
    count: int
    missing: tuple[str, ...]


Operation = Upsert | Delete
Written = Upserted | Deleted


def check_upsert(upsert: Upsert) -> Vectors:
    """The vectors (N, D) as they are stored; raises `ItemError` unless each item occurs once and has a unit vector."""
    vectors = np.ascontiguousarray(upsert.vectors, "<f4")
    if not len(upsert.items):
        raise ItemError("an upsert needs at least one item")
    if vectors.ndim != 2 or len(vectors) != len(upsert.items):
        raise ItemError(f"{len(upsert.items)} items came with vectors of shape {vectors.shape}; it must be (items, D)")
    if (wrong := first_not_unit(vectors)) is not None:
        raise ItemError(f"the vector of item {upsert.items[wrong[0]].id!r} has norm {wrong[1]}; it must be 1")
    names = [item.id for item in upsert.items]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ItemError(f"id {twice!r} occurs twice in one upsert: send each item once")
    return vectors


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
