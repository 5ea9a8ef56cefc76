"""Near-duplicates: for each item of a page, the others whose embeddings are as good as the same.

Walking all pages gives every pair, from both sides, up to the first hundred of an item. Joining what is paired
therefore finds every group, even one of more than a hundred. Files that are the same to the byte score 1, also where
they were embedded at different times, whose embeddings may differ in the last digits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.items import Stored
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.scoring import TOLERANCE
from serving.operations.exchange import Exchange
from serving.operations.opened import OpenCollection
from serving.operations.sizes import check_ids
from serving.protocol.operations import DuplicatesRequest

MOST = 100
_FIRST = 8
_WIDER = 4


def duplicates(collection: OpenCollection, one: Exchange[DuplicatesRequest]) -> dict[str, Any]:
    """Those items of a page that have near-duplicates, with them, and the cursor of the next page.

    A filter holds for both sides of a pair. For use inside the collection's `turn`.
    """
    request = one.request
    page = collection.catalogue.items.page(one.selection, limit=request.limit, cursor=request.cursor)
    listed = np.array([item.row for item in page.items], np.int64)
    rows, vectors = collection.catalogue.vectors.at(listed, collection.release)
    allowed = collection.catalogue.items.rows_matching(one.where) if one.where is not None else None
    near = _near(collection, rows, vectors, least=request.min_score - TOLERANCE, allowed=allowed)
    others = collection.catalogue.items.at(row for pairs in near.values() for row, _ in pairs)
    check_ids(others[row] for pairs in near.values() for row, _ in pairs)
    here = {item.row: item for item in page.items}
    shown = [
        {"id": here[row].id, "duplicates": found}
        for row, pairs in near.items()
        if (found := _shown(here[row], [(others[other], score) for other, score in pairs], request.min_score))
    ]
    return {"items": shown, "min_score": request.min_score, "cursor": page.cursor}


def _near(
    collection: OpenCollection, rows: Rows, vectors: Vectors, *, least: float, allowed: Rows | None
) -> dict[int, list[tuple[int, float]]]:
    """By row, the other rows that score at least `least`, where there are any; looks further where all found do."""
    near: dict[int, list[tuple[int, float]]] = {}
    pending: NDArray[np.intp] = np.arange(len(rows))
    count = _FIRST
    while pending.size:
        found = collection.index.search(vectors[pending], count + 1, rows=allowed)
        full: list[int] = []
        for at, line, scores in zip(pending.tolist(), found.rows.tolist(), found.scores.tolist(), strict=True):
            close = [(row, score) for row, score in zip(line, scores, strict=True) if score >= least]
            if len(close) == count + 1 and count < MOST:
                full.append(at)
            elif others := [(row, score) for row, score in close if row != int(rows[at])]:
                near[int(rows[at])] = others[:MOST]
        pending = np.array(full, np.intp)
        count = min(_WIDER * count, MOST)
    return dict(sorted(near.items()))


def _shown(item: Stored, others: list[tuple[Stored, float]], least: float) -> list[dict[str, Any]]:
    """Those that score at least `least`, best first; `identical` is whether the files are the same to the byte."""
    same = [other.source.sha256 == item.source.sha256 for other, _ in others]
    lines = [
        {"id": other.id, "score": 1.0 if identical else score, "identical": identical}
        for (other, score), identical in zip(others, same, strict=True)
        if identical or score >= least
    ]
    return sorted(lines, key=lambda line: -line["score"])
