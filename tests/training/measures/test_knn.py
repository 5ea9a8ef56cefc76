"""kNN against the plain loop and scikit-learn."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from tests.training.labelled import blobs
from training.measures import knn
from training.measures.knn import knn_accuracies, neighbours, weighted_accuracy


def test_knn_equals_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_CHUNK", 7)
    memory, queries = blobs(60, 3, seed=1, noise=1.5), blobs(40, 3, seed=2, noise=1.5)

    def naive(k: int, weight: Callable[[float], float]) -> float:
        right = 0
        for h, wanted in zip(*queries, strict=True):
            scores = memory[0] @ h
            nearest = np.argsort(-scores)[:k]
            votes = [sum(weight(float(scores[i])) for i in nearest if memory[1][i] == code) for code in range(3)]
            right += int(np.argmax(votes) == wanted)
        return right / len(queries[1])

    assert knn_accuracies(memory, queries)["k10"] == naive(10, lambda s: 1 + 1e-6 * s)
    assert weighted_accuracy(memory, queries) == naive(60, lambda s: float(np.exp(s / 0.1)))


def test_one_search_gives_both_readings() -> None:
    memory, queries = blobs(300, 4, seed=1, noise=1.5), blobs(90, 4, seed=2, noise=1.5)
    both = knn_accuracies(memory, queries)
    assert both["k200"] == weighted_accuracy(memory, queries)
    assert both["k10"] != both["k200"]


def test_the_majority_is_scikit_learns_but_for_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "MAJORITY_K", 9)
    memory, queries = blobs(300, 2, seed=1, noise=1.5), blobs(90, 2, seed=2, noise=1.5)
    theirs = KNeighborsClassifier(9, algorithm="brute", metric="cosine").fit(*memory)  # odd, two labels: no ties
    assert knn_accuracies(memory, queries)["k10"] == pytest.approx(theirs.score(*queries))


def test_neighbours_are_the_nearest_in_order() -> None:
    memory, queries = blobs(50, 3, seed=1)[0], blobs(20, 3, seed=2)[0]
    places, scores = neighbours(memory, queries, 5)
    theirs = NearestNeighbors(metric="cosine", algorithm="brute").fit(memory).kneighbors(queries, 5)
    assert np.array_equal(places, theirs[1])
    np.testing.assert_allclose(scores, 1 - theirs[0], atol=1e-6)
    assert neighbours(memory[:3], queries, 5)[0].shape == (20, 3)
