"""Vectors of one release as a catalogue gives them: by row, and what changed since a sequence number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """All rows, ascending, that have a vector of the release at write `seq`; D of the vectors, 0 without any."""

    seq: int
    rows: Rows
    dim: int


def first_not_unit(vectors: Vectors) -> tuple[int, float] | None:
    """Of vectors (N, D), the position of the first whose norm is not 1, and its norm; None if all are unit vectors."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(norms - 1.0) <= UNIT_TOLERANCE))  # also those that are not finite
    return (int(wrong[0]), float(norms[wrong[0]])) if wrong.size else None
