"""k-nearest-neighbour accuracy of embeddings: what they know without any fitting.

Two customary readings: the majority of the 10 nearest, and the 200 nearest weighted by exp(cosine / 0.1)
(Wu et al. 2018, arXiv 1805.01978). k is capped to the number of embeddings there are.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MAJORITY_K = 10
WEIGHTED_K, TEMPERATURE = 200, 0.1
_CHUNK = 1024

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]
_Vote = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def majority_accuracy(memory: Labelled, queries: Labelled, *, k: int = MAJORITY_K) -> float:
    """The share of queries whose k nearest of memory mostly bear their label.

    Both are unit-norm embeddings (N, D) with label indices (N,). Of labels with equal counts the one with the
    larger sum of similarities wins.
    """
    tie_break = 1e-6
    return _accuracy(memory, queries, k, lambda scores: 1 + tie_break * scores)


def weighted_accuracy(memory: Labelled, queries: Labelled, *, k: int = WEIGHTED_K) -> float:
    """The same with each neighbour's vote weighted by exp(cosine / 0.1)."""
    return _accuracy(memory, queries, k, lambda scores: np.exp((scores - 1) / TEMPERATURE))


def _accuracy(memory: Labelled, queries: Labelled, k: int, vote: _Vote) -> float:
    known, labels = memory
    k = min(k, len(known))
    right = 0
    for start in range(0, len(queries[0]), _CHUNK):
        h, wanted = queries[0][start : start + _CHUNK], queries[1][start : start + _CHUNK]
        scores = h @ known.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(h), int(labels.max()) + 1))
        weights = vote(np.take_along_axis(scores, nearest, axis=1).astype(np.float64))
        np.add.at(votes, (np.arange(len(h))[:, None], labels[nearest]), weights)
        right += int((votes.argmax(axis=1) == wanted).sum())
    return right / len(queries[0])
