"""Confusion against scikit-learn, and the samples that are drawn from it."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tests.training.labelled import blobs, split
from training.evaluation.confusion import confusion, per_class, worst_pairs
from training.evaluation.neighbour_samples import confused, sample, spaced
from training.measures.probe import fit_probe


def test_confusion_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, 300), rng.integers(0, 6, 300)
    counts = confusion(true, predicted, classes=7)
    assert np.array_equal(counts, confusion_matrix(true, predicted, labels=range(7)))
    accuracies = per_class(counts)
    assert accuracies[5:] == [None, None]
    assert accuracies[2] == pytest.approx(np.mean(predicted[true == 2] == 2))
    with pytest.raises(ValueError, match="predicted has indices 0 to 5; accepted: 0 to 4"):
        confusion(true, predicted, classes=5)


def test_the_worst_pairs_are_the_largest_off_the_diagonal() -> None:
    counts = np.array([[9, 3, 0], [1, 2, 7], [0, 0, 5]])
    first, second, *rest = worst_pairs(counts, 5)
    assert (first.true, first.predicted, first.images, first.share) == (1, 2, 7, 0.7)
    assert (second.true, second.predicted, second.images) == (0, 1, 3)
    assert len(rest) == 1
    assert worst_pairs(np.diag([3, 4]), 5) == []
    assert counts[0, 0] == 9


def test_samples_are_the_nearest_by_brute_force_without_themselves() -> None:
    h = blobs(60, 3)[0]
    memory = np.arange(10, 60)
    for one in sample(h, np.array([2, 30]), memory):
        others = [row for row in memory if row != one["row"]]
        order = sorted(others, key=lambda row: -float(h[row] @ h[one["row"]]))
        assert [row for row, _ in one["neighbours"]] == order[:8]
        assert one["neighbours"][0][1] == pytest.approx(float(h[order[0]] @ h[one["row"]]), abs=1e-4)
    assert sample(h, np.array([2]), memory[:0]) == [{"row": 2, "neighbours": []}]


def test_rows_are_spread_evenly() -> None:
    assert spaced(np.arange(100), 4).tolist() == [12, 37, 62, 87]
    assert spaced(np.arange(3), 4).tolist() == [0, 1, 2]


def test_the_confused_are_wrong_and_of_the_pair_they_stand_for() -> None:
    h, labels = blobs(400, 4, noise=2.0)
    splits = split(labels, train=200, validation=50)
    probe = fit_probe((h[:200], labels[:200]), (h[200:250], labels[200:250]), splits.classes).probe
    predicted = probe.logits(h[splits.test]).argmax(axis=1)
    counts = confusion(labels[splits.test], predicted, classes=4)
    found = confused(h, splits, probe, counts)
    assert found
    for one in found:
        at = np.flatnonzero(splits.test == one["row"])[0]
        assert splits.classes[predicted[at]] == one["predicted"] != one["true"] == splits.classes[labels[one["row"]]]
        assert all(row < 250 for row, _ in one["neighbours"])
    assert [one["images"] for one in found] == sorted((one["images"] for one in found), reverse=True)
