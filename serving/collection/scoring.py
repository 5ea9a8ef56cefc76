"""Exact scores, and the k best rows of each query among all that is offered.

A score is the inner product of unit vectors, computed in float64 and rounded to float32; equal scores are ordered by
row. So the result depends on what was offered, not on how it was split or found.
Left out: finding what to offer (`serving.collection.searching`).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.collection.vectors import Rows, Vectors

# How far a float32 inner product of unit vectors may be off; what is closer than that is decided in float64.
TOLERANCE = 1e-5
_AT_ONCE = 4096
Fetch = Callable[[Rows], tuple[Rows, Vectors]]  # those of some rows that have a vector, ascending, with the vectors


class Found(NamedTuple):
    """Search results for Q queries: `scores` float32 (Q, k), `rows` int64 (Q, k), best first."""

    scores: NDArray[np.float32]
    rows: Rows


class Best:
    """The k best of each of the queries (Q, D) so far."""

    def __init__(self, queries: Vectors, k: int) -> None:
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.k = k
        self._scores = [np.empty(0, np.float32)] * len(queries)
        self._rows = [np.empty(0, np.int64)] * len(queries)

    def offer(self, rows: Rows, vectors: Vectors, *, only: Iterable[int] | None = None) -> None:
        """Consider these rows (N,), with their vectors (N, D), for every query, or for `only` some."""
        chosen = np.arange(len(self.queries)) if only is None else np.fromiter(only, np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            near = self.queries[chosen] @ vectors[part].T
            for query, scores in zip(chosen, near, strict=True):
                hits = np.flatnonzero(scores >= self._floor(query, scores) - TOLERANCE)
                self.offer_to(query, rows[part][hits], vectors[part][hits])

    def offer_to(self, query: int, rows: Rows, vectors: Vectors) -> None:
        """Consider these rows for one query; none may have been offered to it before."""
        if not len(rows):
            return
        scores = np.concatenate([self._scores[query], exact_scores(self.queries[query], vectors)])
        both = np.concatenate([self._rows[query], rows])
        order = np.lexsort((both, -scores))[: self.k]
        self._scores[query], self._rows[query] = scores[order], both[order]

    def scores(self) -> list[NDArray[np.float32]]:
        """The scores of each query's best so far, best first; fewer than k where fewer were offered."""
        return self._scores

    def found(self) -> Found:
        """The best of each query; every query must have been offered equally many, or at least k."""
        if not self._rows:
            return Found(np.empty((0, 0), np.float32), np.empty((0, 0), np.int64))
        return Found(np.stack(self._scores), np.stack(self._rows))

    def _floor(self, query: int, scores: NDArray[np.float32]) -> float:
        """What a score must reach to be among the k best of those before and these."""
        before = self._scores[query][-1] if len(self._scores[query]) == self.k else -np.inf
        among = np.partition(scores, -self.k)[-self.k] if len(scores) > self.k else -np.inf
        return float(max(before, among))


def exact_scores(query: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """Cosine similarity of one query (D,) to each of the vectors (N, D), in [-1, 1]."""
    precise = query.astype(np.float64)
    scores = [vectors[at : at + _AT_ONCE].astype(np.float64) @ precise for at in range(0, len(vectors), _AT_ONCE)]
    return np.clip(np.concatenate(scores).astype(np.float32), -1.0, 1.0)


def rank(best: Best, candidates: Sequence[Rows], fetch: Fetch) -> None:
    """Offer each query its own candidates, whose vectors are fetched once for neighbouring queries."""
    start = 0
    while start < len(candidates):
        stop = start + 1
        total = len(candidates[start])
        while stop < len(candidates) and total + len(candidates[stop]) <= _AT_ONCE:
            total += len(candidates[stop])
            stop += 1
        rows, vectors = fetch(np.unique(np.concatenate(candidates[start:stop])))
        for query in range(start, stop):
            at = _places(rows, candidates[query])
            best.offer_to(query, rows[at], vectors[at])
        start = stop


def _places(rows: Rows, wanted: Rows) -> Rows:
    """Where in `rows`, ascending, those `wanted` are that it has."""
    wanted = wanted[wanted <= rows[-1]] if len(rows) else wanted[:0]
    places = np.searchsorted(rows, wanted)
    there: Rows = places[rows[places] == wanted]
    return there
