"""Few labels: drawn by label and by seed, and the probe that is fitted on nothing else."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.training.labelled import blobs, split
from training.evaluation.few_labels import few, few_label_probes, mean_of, shares, stratified


def test_a_draw_is_stratified_seeded_and_has_every_label() -> None:
    labels = np.repeat(np.arange(4), [400, 200, 30, 3])
    rows = np.arange(len(labels))
    drawn = stratified(rows, labels, 0.1, rng=np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [40, 20, 3, 1]
    assert np.array_equal(drawn, np.unique(drawn))
    assert np.array_equal(drawn, stratified(rows, labels, 0.1, rng=np.random.default_rng(0)))
    assert not np.array_equal(drawn, stratified(rows, labels, 0.1, rng=np.random.default_rng(1)))
    assert not len(stratified(rows[:0], labels, 0.1, rng=np.random.default_rng(0)))


def test_sizes_that_do_not_divide_are_rounded_right_on_average() -> None:
    labels = np.repeat(np.arange(11), [450] * 10 + [3])
    draws = [stratified(np.arange(4503), labels, 0.01, rng=np.random.default_rng(seed)) for seed in range(200)]
    counts = np.array([np.bincount(labels[drawn], minlength=11) for drawn in draws])
    assert set(counts[:, :10].sum(axis=1)) == {45}
    assert set(counts[:, :10].flat) == {4, 5}
    assert set(counts[:, 10]) == {1}
    np.testing.assert_allclose(counts[:, :10].mean(axis=0), 4.5, atol=0.15)


def test_few_take_their_share_of_validation_too_and_leave_test() -> None:
    splits = split(blobs(1300, 5)[1], train=1000, validation=200)
    chosen = few(splits, 0.1, seed=0)
    assert (len(chosen.train), len(chosen.validation)) == (100, 20)
    assert set(chosen.train) <= set(splits.train)
    assert set(chosen.validation) <= set(splits.validation)
    assert np.array_equal(chosen.test, splits.test)
    assert np.array_equal(few(splits, 0.1, seed=0).train, chosen.train)
    assert not np.array_equal(few(splits, 0.1, seed=1).train, chosen.train)
    with pytest.raises(ValueError, match="share is 0; accepted"):
        few(splits, 0, seed=0)


@pytest.mark.parametrize(("train", "wanted"), [(1000, {"1%", "10%"}), (300, {"10%"}), (45, set())])
def test_a_share_below_an_image_a_label_is_left_out(train: int, wanted: set[str]) -> None:
    assert set(shares(split(blobs(train + 10, 5)[1], train=train, validation=5))) == wanted


def test_the_probe_is_fitted_on_the_few_and_nothing_else() -> None:
    h, labels = blobs(900, 4, noise=1.2)
    splits = split(labels, train=600, validation=100)
    found = few_label_probes(h, splits, name="blobs")
    assert set(found) == {"1%", "10%"}
    for title, share in (("1%", 0.01), ("10%", 0.1)):
        for seed in range(3):
            chosen = few(splits, share, seed=seed)
            c = found[title]["C"][seed]
            theirs = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300, tol=1e-3))
            theirs.fit(h[chosen.train], labels[chosen.train])
            score = theirs.score(h[splits.test], labels[splits.test])
            assert found[title]["accuracies"][seed] == pytest.approx(score, abs=0.006)
        assert found[title]["accuracy"] == pytest.approx(np.mean(found[title]["accuracies"]))
        assert found[title]["images"] == len(few(splits, share, seed=0).train)
    assert found["1%"]["accuracy"] < found["10%"]["accuracy"]
    outside = np.setdiff1d(np.arange(900), np.concatenate([few(splits, 0.1, seed=s).train for s in range(3)]))
    changed = h.copy()
    changed[np.setdiff1d(outside, np.concatenate([splits.validation, splits.test]))] = 0
    assert few_label_probes(changed, splits, name="blobs")["10%"] == found["10%"]


def test_runs_become_their_mean() -> None:
    runs = [{"accuracy": 0.5, "images": 9, "lr": 0.1}, {"accuracy": 0.7, "images": 11, "lr": 0.03}]
    assert mean_of(runs) == {
        "accuracy": pytest.approx(0.6),
        "deviation": pytest.approx(0.1),
        "images": 10,
        "accuracies": [0.5, 0.7],
        "lr": [0.1, 0.03],
    }
