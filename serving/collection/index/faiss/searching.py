"""The k best rows of a view for each query, whatever the kind of its base: exactly k, unless there are fewer.

Few rows of the base (a selective filter, a small base, `exact`) are compared in full. Otherwise FAISS gives candidates,
more than k, that are then scored exactly. If deletions or a filter leave a query with too few, the search goes wider
and deeper until it has k, finally through all rows. The delta is compared in full, after the base: by then there is
something to beat. An approximate base may miss some of the best; what it finds is scored and ordered exactly.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.kinds import Selector
from serving.collection.index.faiss.mapped_base import MappedBase
from serving.collection.index.faiss.view import Reach, View
from serving.collection.index.scoring import TOLERANCE, Best, Found

FEW_ROWS = 2_500  # up to here, comparing all costs less than a filtered search of even a small base
_DEEPER = 8  # rows compared in full for the time of going one deeper; measured with 2,048 numbers, a graph of 50,000
_COMPARED_AT_ONCE = 4096
_WIDER = 4


@dataclass(frozen=True, eq=False)
class Hunt:
    """The part of a search that goes to the base, for `wanted` rows of each query."""

    base: MappedBase
    reach: Reach
    wanted: int
    least_depth: int

    @property
    def selector(self) -> Selector | None:
        """What FAISS is limited to; None if nothing, as an exact base without a filter is searched faster that way."""
        whole = self.reach.in_base == len(self.base)
        exempt = self.reach.chosen is None and not self.base.kind.approximate
        return None if whole or exempt else self.reach.selector

    @property
    def depth(self) -> int:
        """The depth to begin with: a graph walks past rows that it may not return, and so must look that much deeper.

        It must look deeper still, as such rows lie together: if half may not be returned, most of some region may not.
        """
        least = self.base.kind.depth_for(self.base.kind.candidates(self.wanted))
        share = self.reach.in_base / len(self.base)
        return min(int(max(self.least_depth, least) * (3 - 2 * share) / share), self.base.deepest)


def few_rows_of(base: MappedBase | None) -> int:
    """The number of a filter's rows up to which comparing them all costs less than searching `base` for them.

    To find some of `n` rows among `count`, a search goes `count / n` times as deep, so both cost the same at the root.
    """
    if base is None or not base.kind.approximate:
        return FEW_ROWS
    return max(FEW_ROWS, isqrt(_DEEPER * base.depth * len(base)))


def search_view(
    view: View, queries: Vectors, k: int, *, reach: Reach, few: int | None, depth: int | None = None
) -> Found:
    """The `k` best within `reach` for each query (Q, D).

    A filter's rows are compared in full if there are up to `few`, and so is an approximate base of that size; None:
    whatever the size. `depth` is the search depth where it is not to be the one that the base was built to.
    """
    best = Best(queries, min(k, len(reach)))
    if best.k == 0 or not len(queries):
        return Found(np.empty((len(queries), best.k), np.float32), np.empty((len(queries), best.k), np.int64))
    wanted = min(best.k, reach.in_base)
    if view.base is not None and wanted:
        hunt = Hunt(view.base, reach, wanted, depth if depth is not None else view.base.depth)
        plain = reach.chosen is None and not view.base.kind.approximate
        if not plain and (few is None or reach.in_base <= max(few, wanted)):
            _compare_all(hunt, best, range(len(queries)))
        else:
            _look(hunt, best)
    best.offer(reach.rows, reach.vectors)
    return best.found()


def _compare_all(hunt: Hunt, best: Best, queries: Iterable[int]) -> None:
    positions, only = hunt.reach.positions, list(queries)
    for start in range(0, len(positions), _COMPARED_AT_ONCE):
        part = positions[start : start + _COMPARED_AT_ONCE]
        best.offer(hunt.base.rows[part], hunt.base.vectors(part), only=only)


def _look(hunt: Hunt, best: Best) -> None:
    """Candidates from FAISS for every query, scored exactly; queries that even the widest search leaves short are
    compared with all.
    """
    pending = np.arange(len(best.queries))
    count, depth = min(hunt.base.kind.candidates(hunt.wanted), len(hunt.base)), hunt.depth
    while pending.size:
        scores, positions = hunt.base.search(best.queries[pending], count, depth=depth, selector=hunt.selector)
        live = (positions >= 0) & ~hunt.reach.dead[positions]
        done = _enough(hunt, scores, live)
        positions[~live] = -1
        best.offer_at(positions[done], hunt.base.rows, hunt.base.matrix, only=pending[done])
        if count == len(hunt.base):
            _compare_all(hunt, best, pending[~done].tolist())
            return
        pending = pending[~done]
        count, depth = min(_WIDER * count, len(hunt.base)), min(_WIDER * depth, hunt.base.deepest)


def _enough(hunt: Hunt, scores: NDArray[np.float32], live: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which queries have as many live ones (Q, C) as wanted; of an exact base also nothing left that might tie."""
    counted = live.cumsum(axis=1)
    enough = counted[:, -1] >= hunt.wanted
    if hunt.base.kind.approximate:
        return enough
    last = np.take_along_axis(scores, (counted >= hunt.wanted).argmax(axis=1)[:, None], 1)[:, 0]
    everything: NDArray[np.bool_] = enough & ((scores.shape[1] == len(hunt.base)) | (scores[:, -1] < last - TOLERANCE))
    return everything
