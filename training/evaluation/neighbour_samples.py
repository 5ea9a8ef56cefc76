"""Some images with their nearest neighbours, to look at: ordinary ones, and the worst confusions.

The page shows them (`training.evaluation.report`); accuracies by neighbours are in `training.measures.knn`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.confusion import Pair, worst_pairs
from training.evaluation.label_splits import LabelSplits, Rows
from training.measures.knn import neighbours
from training.measures.probe import Probe

SAMPLES, CONFUSED, NEIGHBOURS = 8, 8, 8

Embeddings = NDArray[np.float32]


def spaced(rows: Rows, most: int) -> Rows:
    """At most `most` of the rows, spread evenly: images in the order of their labels give some of every label."""
    if len(rows) <= most:
        return rows
    places = ((np.arange(most) + 0.5) * len(rows) / most).astype(np.int64)
    chosen: Rows = rows[places]
    return chosen


def sample(h: Embeddings, queries: Rows, memory: Rows) -> list[dict[str, Any]]:
    """Queries with the nearest of memory, both rows of h (N, D), a query itself left out.

    [{"row", "neighbours": [[row, score], ...]}, ...], nearest first; no neighbours where memory has none.
    """
    if not len(queries) or not len(memory):
        return [{"row": int(row), "neighbours": []} for row in queries]
    places, scores = neighbours(h[memory], h[queries], NEIGHBOURS + 1)
    return [
        {"row": int(row), "neighbours": _others(int(row), memory[near], found)}
        for row, near, found in zip(queries, places, scores, strict=True)
    ]


def confused(h: Embeddings, splits: LabelSplits, probe: Probe, counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """For each of the most frequent confusions the test image that the probe is surest about, and wrong.

    As `sample`, each with "true" and "predicted" (labels' names), "images" and "share" of the confusion.
    """
    logits = probe.logits(h[splits.test])
    codes = np.array([splits.classes.index(name) for name in probe.classes])
    predicted, sureness = codes[logits.argmax(axis=1)], logits.max(axis=1) - logsumexp(logits)
    pairs, queries = worst_pairs(counts, CONFUSED), []
    for pair in pairs:
        places = np.flatnonzero((splits.labels[splits.test] == pair.true) & (predicted == pair.predicted))
        queries.append(splits.test[places[sureness[places].argmax()]])
    found = sample(h, np.array(queries, dtype=np.int64), splits.known)
    return [one | _words(pair, splits) for one, pair in zip(found, pairs, strict=True)]


def logsumexp(logits: Embeddings) -> Embeddings:
    """log of the sum of exp of each row, (N, C) to (N,)."""
    most = logits.max(axis=1)
    total: Embeddings = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return total


def _others(row: int, near: Rows, scores: Embeddings) -> list[list[float]]:
    """Neighbours of a row as [row, score], without itself."""
    pairs = zip(near.tolist(), scores.tolist(), strict=True)
    return [[other, round(score, 4)] for other, score in pairs if other != row][:NEIGHBOURS]


def _words(pair: Pair, splits: LabelSplits) -> dict[str, Any]:
    true, predicted = splits.classes[pair.true], splits.classes[pair.predicted]
    return {"true": true, "predicted": predicted, "images": pair.images, "share": pair.share}
