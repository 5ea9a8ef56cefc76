"""The k best of a view for each query, whatever the kind of its base: exactly k, unless there are fewer.

The delta is compared in full. Of the base, few rows (a selective filter, a small base, `exact`) are compared in full
as well; else FAISS gives candidates, more than k, that are then scored exactly. Where deletions or a filter leave a
query with too few, it goes wider and deeper until it has k, and in the end through all rows. An approximate base may
miss some of the best; what it finds is scored and ordered exactly.
Left out: keeping the view up to date (`serving.collection.neighbours`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.collection.base import MappedBase
from serving.collection.build import candidates_for
from serving.collection.index_kinds import Selector
from serving.collection.scoring import TOLERANCE, Best, Fetch, Found, rank
from serving.collection.vectors import Rows, Vectors
from serving.collection.view import Reach, View

FEW_ROWS = 5_000  # up to here, comparing all costs less than a filtered search that may have to be widened
_FETCHED_AT_ONCE = 4096
_WIDER = 4


@dataclass(frozen=True, eq=False)
class Hunt:
    """The part of a search that goes to the base: `wanted` rows of each query, their vectors looked up by `fetch`."""

    base: MappedBase
    reach: Reach
    wanted: int
    fetch: Fetch

    @property
    def selector(self) -> Selector | None:
        """What FAISS must keep to; an exact base without a filter is searched faster without."""
        whole = self.reach.in_base == len(self.base)
        exempt = self.reach.chosen is None and not self.base.kind.approximate
        return None if whole or exempt else self.reach.selector

    @property
    def depth(self) -> int:
        """Where to begin: a graph walks past rows that it may not return, and so has to look that much deeper."""
        least = self.base.kind.depth_for(candidates_for(self.wanted))
        share = self.reach.in_base / len(self.base)
        return min(int(max(self.base.depth, least) / share), self.base.deepest)


def search_view(view: View, queries: Vectors, k: int, *, reach: Reach, fetch: Fetch, few: int | None) -> Found:
    """The `k` best within `reach` for each query (Q, D).

    `fetch` gives the vectors of base rows. A filter's rows are compared in full if there are up to `few`, and so is
    an approximate base of that size; None: whatever the size.
    """
    best = Best(queries, min(k, len(reach)))
    if best.k == 0:
        return Found(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
    best.offer(reach.rows, reach.vectors)
    wanted = min(best.k, reach.in_base)
    if view.base is not None and wanted:
        hunt = Hunt(view.base, reach, wanted, fetch)
        plain = reach.chosen is None and not view.base.kind.approximate
        if not plain and (few is None or reach.in_base <= max(few, wanted)):
            _compare_all(hunt, best, range(len(queries)))
        else:
            _look(hunt, best)
    return best.found()


def _compare_all(hunt: Hunt, best: Best, queries: Iterable[int]) -> None:
    rows = np.sort(hunt.base.rows[hunt.reach.positions])
    only = list(queries)
    for start in range(0, len(rows), _FETCHED_AT_ONCE):
        best.offer(*hunt.fetch(rows[start : start + _FETCHED_AT_ONCE]), only=only)


def _look(hunt: Hunt, best: Best) -> None:
    """Candidates from FAISS for every query, scored exactly; queries that go short are compared with all."""
    candidates = _candidates(hunt, best.queries)
    short = [query for query, rows in enumerate(candidates) if len(rows) < hunt.wanted]
    for query in short:
        candidates[query] = np.empty(0, np.int64)
    rank(best, candidates, hunt.fetch)
    if short:
        _compare_all(hunt, best, short)


def _candidates(hunt: Hunt, queries: Vectors) -> list[Rows]:
    """For each query the rows to look at closely: enough of them, unless even the widest search finds fewer."""
    found = [np.empty(0, np.int64)] * len(queries)
    pending = np.arange(len(queries))
    count, depth = min(candidates_for(hunt.wanted), len(hunt.base)), hunt.depth
    while pending.size:
        scores, positions = hunt.base.search(queries[pending], count, depth=depth, selector=hunt.selector)
        live = (positions >= 0) & ~hunt.reach.dead[positions]
        widest = count == len(hunt.base)
        done = np.array([widest or _enough(hunt, *line) for line in zip(scores, live, strict=True)], bool)
        for at in np.flatnonzero(done).tolist():
            found[int(pending[at])] = hunt.base.rows[positions[at][live[at]]]
        pending = pending[~done]
        count, depth = min(_WIDER * count, len(hunt.base)), min(_WIDER * depth, hunt.base.deepest)
    return found


def _enough(hunt: Hunt, scores: NDArray[np.float32], live: NDArray[np.bool_]) -> bool:
    """As many live ones as wanted; of an exact base also nothing left that might tie with the last of them."""
    if int(live.sum()) < hunt.wanted:
        return False
    return hunt.base.kind.approximate or bool(scores[-1] < scores[live][hunt.wanted - 1] - TOLERANCE)
