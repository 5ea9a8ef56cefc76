"""Embedding spaces that a collection keeps complete, and the items that wait for a vector of one of them.

Whoever writes an item makes it pending, in the same transaction, in every other space. So no write is lost for a
release that is about to serve, or is kept for a rollback. A space begins as *filling*. Once nothing waits in it, it is
*complete* for good, and from then on no search in it ignores an item that waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.collection.catalogue.vectors import Rows, Vectors, first_not_unit
from serving.collection.errors import ItemError


@dataclass(frozen=True)
class Space:
    """An embedding space: how many items wait for a vector of it, and how many can't have one."""

    release: str
    complete: bool
    pending: int
    failed: int


@dataclass(frozen=True)
class Pending:
    """An item that waits, since write `seq`, for a vector of the bytes whose digest is `sha256`.

    `path` says where the bytes are; it is None if the catalogue has them.
    """

    row: int
    id: str
    sha256: bytes
    path: str | None
    seq: int


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` of a space's items, for several workers that share the work."""

    index: int = 0
    count: int = 1


WHOLE = Part()


def check_filling(rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors) -> Vectors:
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
