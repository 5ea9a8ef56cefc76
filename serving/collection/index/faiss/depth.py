"""Choosing how deep an approximate base is searched: as deep as the hardest sort of trial query needs.

Depths are tried in turn until every sort meets the recall target, or going deeper gains nothing; the recall that was
reached is then recorded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.faiss.kinds import IndexKind, NativeIndex
from serving.collection.index.faiss.trial import Sorts
from serving.collection.index.scoring import Best

RECALL_AT = 10
_GAIN = 0.002  # of recall: what four times the depth must bring to be worth it


@dataclass(frozen=True)
class Chosen:
    """A depth, and the recall@10 of the worst sort of query at it; `facts` have those of every sort and depth."""

    depth: int
    recall: float
    facts: dict[str, Any]


class Trial:
    """Queries of several sorts, with the best of everything that was offered to `truth` for each."""

    def __init__(self, sorts: Sorts) -> None:
        self.truth = Best(np.concatenate([*sorts.values()]), RECALL_AT)
        ends = np.cumsum([len(queries) for queries in sorts.values()]).tolist()
        self._parts = {name: slice(end - len(sorts[name]), end) for name, end in zip(sorts, ends, strict=True)}

    def choose(self, kind: IndexKind, index: NativeIndex, *, rows: Rows, matrix: Vectors, target: float) -> Chosen:
        """The least depth at which every sort reaches the target, or else the worst sort reaches its best.

        `index` has the vectors of `matrix` (N, D), whose rows are `rows`; those are what `truth` was offered.
        """
        tried: dict[int, dict[str, float]] = {}
        worst: dict[int, float] = {}
        for depth in kind.depths(index):
            tried[depth] = self._recalls(kind, index, depth=depth, rows=rows, matrix=matrix)
            worst[depth] = min(tried[depth].values())
            if worst[depth] >= target or _levelled_off(worst):
                break
        most = max(worst.values())
        depth = next(depth for depth, recall in worst.items() if recall >= min(target, most - _GAIN))
        facts = {
            "depth": depth,
            "recall_by_depth": {str(depth): round(recall, 4) for depth, recall in worst.items()},
            "recall_by_sort": {name: round(recall, 4) for name, recall in tried[depth].items()},
            "recall_target": target,
        }
        return Chosen(depth, worst[depth], facts)

    def _recalls(
        self, kind: IndexKind, index: NativeIndex, *, depth: int, rows: Rows, matrix: Vectors
    ) -> dict[str, float]:
        """Recall of each sort: the share of places of the exact answer that were filled as well; a tie counts."""
        count = min(kind.candidates(RECALL_AT), index.ntotal)
        depth = max(depth, kind.depth_for(count))
        _, positions = kind.search(index, self.truth.queries, count=count, depth=depth, selector=None)
        best = Best(self.truth.queries, RECALL_AT)
        best.offer_at(positions, rows, matrix)
        filled = best.scores() >= self.truth.scores()[:, -1:]
        return {name: float(filled[part].mean()) for name, part in self._parts.items()}


def _levelled_off(recalls: dict[int, float]) -> bool:
    """Whether the last depth is hardly better than a quarter of it."""
    last = max(recalls)
    before = [recall for depth, recall in recalls.items() if 4 * depth <= last]
    return bool(before) and recalls[last] - max(before) < _GAIN
