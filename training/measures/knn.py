"""k-nearest-neighbour accuracy of embeddings: what they know without any fitting.

Two customary readings: the majority of the 10 nearest, and the 200 nearest weighted by exp(cosine / 0.1)
(Wu et al. 2018, arXiv 1805.01978). k is capped to the number of embeddings there are.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

MAJORITY_K = 10
WEIGHTED_K, TEMPERATURE = 200, 0.1
_CHUNK = 1024
_SCORES_MOST = 1 << 26  # at a time in memory

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
_Vote = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def weighted_accuracy(memory: Labelled, queries: Labelled, *, k: int = WEIGHTED_K) -> float:
    """The share of queries that bear the label for which their k nearest of memory vote, by exp(cosine / 0.1).

    Both are unit-norm embeddings (N, D) with label indices (N,).
    """
    return float(weighted_right(memory, queries, k=k).mean())


def weighted_right(memory: Labelled, queries: Labelled, *, k: int = WEIGHTED_K) -> NDArray[np.bool_]:
    """Whether each query (N,) bears the label for which its k nearest of memory vote, by exp(cosine / 0.1)."""
    return _right(memory, queries, [(k, _weighted)])[0]


def knn_accuracies(memory: Labelled, queries: Labelled, *, description: str | None = None) -> dict[str, float]:
    """Both customary readings, "k10" and "k200", from one search; with a progress bar where it has a description.

    Of labels with equal counts among the 10 the one with the larger sum of similarities wins.
    """
    votes = [(MAJORITY_K, _majority), (WEIGHTED_K, _weighted)]
    k10, k200 = _right(memory, queries, votes, description=description)
    return {"k10": float(k10.mean()), "k200": float(k200.mean())}


def neighbours(
    memory: NDArray[np.float32], h: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions in memory (M, D) of the k nearest of each of h (N, D), nearest first, and their scores (cosine).

    Both (N, k), k capped to M.
    """
    k = min(k, len(memory))
    scores = h @ memory.T
    nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(scores, nearest, axis=1)
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(near, order, axis=1)


def _majority(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    tie_break = 1e-6
    return 1 + tie_break * scores


def _weighted(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.exp((scores - 1) / TEMPERATURE)
    return weights


def _right(
    memory: Labelled, queries: Labelled, votes: Sequence[tuple[int, _Vote]], *, description: str | None = None
) -> list[NDArray[np.bool_]]:
    known, labels = memory
    right = [np.zeros(len(queries[0]), dtype=np.bool_) for _ in votes]
    chunk = max(1, min(_CHUNK, _SCORES_MOST // len(known)))
    for start in tqdm(range(0, len(queries[0]), chunk), desc=description, disable=description is None):
        h, wanted = queries[0][start : start + chunk], queries[1][start : start + chunk]
        nearest, scores = neighbours(known, h, max(k for k, _ in votes))
        for number, (k, vote) in enumerate(votes):
            counted = _count(labels[nearest[:, :k]], vote(scores[:, :k].astype(np.float64)), classes=labels.max() + 1)
            right[number][start : start + chunk] = counted.argmax(axis=1) == wanted
    return right


def _count(labels: NDArray[np.int64], weights: NDArray[np.float64], *, classes: int) -> NDArray[np.float64]:
    """The votes (N, C) of neighbours' labels (N, k) with their weights."""
    votes = np.zeros((len(labels), classes))
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), weights)
    return votes
