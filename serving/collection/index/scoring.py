"""Exact scores, and the k best rows of each query among all that is offered.

A score is the inner product of unit vectors in float32, computed pair by pair by one loop of FAISS: with 2,048 numbers
it is within 2e-7 of the float64 one. A matrix product would be as close, but the last bits of each number depend on
what it is computed together with. A vector that equals the query scores exactly 1, although its length may differ from
1 in the last digit; no score is above 1. Equal scores are ordered by row. So the result depends on what was offered,
not on how it was split or found.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.vectors import Rows, Vectors

# A matrix product and a score of the same pair may differ by this much; whatever is closer is scored.
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

        None of them may have been offered before. What can't be among the best is not scored exactly, so this is
        cheapest when much was offered already.
        """
        chosen = np.arange(len(self.queries)) if only is None else np.fromiter(only, np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            among = vectors[part]
            near = self.queries[chosen] @ among.T
            hits = near >= (self._floors(chosen, near) - TOLERANCE)[:, None]
            for at in np.flatnonzero(hits.any(axis=1)).tolist():
                query, places = chosen[at : at + 1], np.flatnonzero(hits[at])
                scores = exact_scores(self.queries[query], among, places[None])
                self._take(query, rows[part][places][None], scores)

    def offer_at(self, positions: Rows, rows: Rows, matrix: Vectors, *, only: Rows | None = None) -> None:
        """Consider for each query its own `positions` (Q, C) of `matrix` (N, D), whose rows are `rows` (N,).

        A position of -1 is no candidate. With `only`, the queries (Q,) that these are for.
        """
        chosen = np.arange(len(self.queries)) if only is None else only
        scores = exact_scores(self.queries[chosen], matrix, positions)
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


def exact_scores(queries: Vectors, matrix: Vectors, positions: Rows) -> NDArray[np.float32]:
    """Cosine similarity in [-1, 1] of each query (Q, D) to its own rows (Q, C) of a matrix (N, D); 1 of equal vectors.

    Minus infinity for position -1. The matrix is read where it is, so one that is mapped is not copied.
    """
    asked, among, places = np.ascontiguousarray(queries), np.ascontiguousarray(matrix), np.ascontiguousarray(positions)
    scores = np.empty(places.shape, np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, asked, among, places)]
    with _one_thread():
        faiss.fvec_inner_products_by_idx(*pointers, asked.shape[1], *places.shape)  # type: ignore[attr-defined]
    for query, place in np.argwhere(scores >= 1 - TOLERANCE).tolist():
        if np.array_equal(asked[query], among[places[query, place]]):
            scores[query, place] = 1
    return np.clip(scores, -1.0, 1.0, out=scores, where=places >= 0)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A hundred queries are half a millisecond of work: done before other threads start, above all on busy cores."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
