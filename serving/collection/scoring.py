"""Exact scores, and the k best rows of each query among all that is offered.

A score is the inner product of unit vectors, computed in float64 and rounded to float32; equal scores are ordered by
row. So the result depends on what was offered, not on how it was split or found.
Left out: finding what to offer (`serving.collection.searching`).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.collection.vectors import Rows, Vectors

# How far a float32 inner product of unit vectors may be off; what is closer than that is decided in float64.
TOLERANCE = 1e-5
_AT_ONCE = 4096
_NO_ROW = np.iinfo(np.int64).max


class Found(NamedTuple):
    """Search results for Q queries: `scores` float32 (Q, k), `rows` int64 (Q, k), best first."""

    scores: NDArray[np.float32]
    rows: Rows


class Best:
    """The k best of each of the queries (Q, D) so far; places that nothing has filled yet score minus infinity."""

    def __init__(self, queries: Vectors, k: int) -> None:
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.k = k
        self._scores = np.full((len(queries), k), -np.inf, np.float32)
        self._rows = np.full((len(queries), k), _NO_ROW, np.int64)

    def offer(self, rows: Rows, vectors: Vectors, *, only: Iterable[int] | None = None) -> None:
        """Consider these rows (N,), with their vectors (N, D), for every query, or for `only` some.

        None may have been offered to them before. What can't be among the best is not scored exactly, so it is
        cheapest when much was offered already.
        """
        chosen = np.arange(len(self.queries)) if only is None else np.fromiter(only, np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            near = self.queries[chosen] @ vectors[part].T
            hits = near >= (self._floors(chosen, near) - TOLERANCE)[:, None]
            for at in np.flatnonzero(hits.any(axis=1)).tolist():
                query, places = int(chosen[at]), np.flatnonzero(hits[at])
                scores = exact_scores(self.queries[query], vectors[part][places])
                self._take(np.array([query]), rows[part][places][None], scores[None])

    def offer_at(self, positions: Rows, rows: Rows, matrix: Vectors, *, only: Rows | None = None) -> None:
        """Consider for each query its own `positions` (Q, C) of `matrix` (N, D), whose rows are `rows` (N,).

        A position of -1 is no candidate. With `only`, the queries (Q,) that these are for.
        """
        chosen = np.arange(len(self.queries)) if only is None else only
        scores = exact_scores_at(self.queries[chosen], matrix, positions)
        self._take(chosen, np.where(positions >= 0, rows[positions], _NO_ROW), scores)

    def scores(self) -> NDArray[np.float32]:
        """The scores (Q, k) of each query's best so far, best first."""
        return self._scores

    def found(self) -> Found:
        """The best of each query; every query must have been offered at least k."""
        assert not np.isinf(self._scores).any(), "a query was offered fewer than k rows"
        return Found(self._scores, self._rows)

    def _take(self, queries: Rows, rows: Rows, scores: NDArray[np.float32]) -> None:
        """Merge rows and scores (Q, C) into the best of these queries (Q,)."""
        both = np.concatenate([self._scores[queries], scores], axis=1)
        names = np.concatenate([self._rows[queries], rows], axis=1)
        order = np.lexsort((names, -both))[:, : self.k]
        self._scores[queries] = np.take_along_axis(both, order, 1)
        self._rows[queries] = np.take_along_axis(names, order, 1)

    def _floors(self, queries: Rows, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a score (Q, N) must reach to be among the k best of those before and these, (Q,)."""
        floors: NDArray[np.float32] = self._scores[queries, -1]
        if scores.shape[1] > self.k and np.isinf(floors).any():
            floors = np.maximum(floors, np.partition(scores, -self.k, axis=1)[:, -self.k])
        return floors


def exact_scores(query: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """Cosine similarity of one query (D,) to each of the vectors (N, D), in [-1, 1]."""
    precise = query.astype(np.float64)
    scores = [vectors[at : at + _AT_ONCE].astype(np.float64) @ precise for at in range(0, len(vectors), _AT_ONCE)]
    return np.clip(np.concatenate(scores).astype(np.float32), -1.0, 1.0)


def exact_scores_at(queries: Vectors, matrix: Vectors, positions: Rows) -> NDArray[np.float32]:
    """The same of each query (Q, D) to its own rows (Q, C) of a matrix (N, D); minus infinity for position -1."""
    scores = np.empty(positions.shape, np.float64)
    single = np.empty((positions.shape[1], matrix.shape[1]), np.float32)
    double = np.empty(single.shape, np.float64)
    for query, places, line in zip(queries.astype(np.float64), positions, scores, strict=True):
        matrix.take(places, axis=0, out=single, mode="clip")  # any other mode copies once more; -1 becomes 0
        np.copyto(double, single)
        np.dot(double, query, out=line)
    return np.where(positions >= 0, np.clip(scores.astype(np.float32), -1.0, 1.0), np.float32(-np.inf))
