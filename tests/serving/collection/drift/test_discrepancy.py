"""MMD^2 against the definition as two loops, and its p-value where nothing and where something has changed."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from serving.collection.drift.discrepancy import discrepancy

Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def naive(one: Vectors, other: Vectors) -> float:
    """Gretton et al. 2012, equation 3, in float64."""

    def mean(left: Vectors, right: Vectors, *, same: bool) -> float:
        kernel = [
            np.exp(-2 * np.sum((x.astype(np.float64) - y.astype(np.float64)) ** 2))
            for i, x in enumerate(left)
            for j, y in enumerate(right)
            if not (same and i == j)
        ]
        return float(np.mean(kernel))

    return mean(one, one, same=True) + mean(other, other, same=True) - 2 * mean(one, other, same=False)


@pytest.mark.parametrize(("sizes", "dim"), [((2, 2), 3), ((30, 45), 8), ((60, 20), 64)])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_it_is_the_naive_double_loop(sizes: tuple[int, int], dim: int, shift: float) -> None:
    random = np.random.default_rng(sum(sizes))
    one, other = (unit(random.normal(size=(count, dim)) + at) for count, at in zip(sizes, (0, shift), strict=True))
    assert discrepancy(one, other).mmd2 == pytest.approx(naive(one, other), abs=2e-6)


def test_p_is_the_share_of_permutations_that_lie_as_far_apart() -> None:
    random = np.random.default_rng(1)
    one, other = unit(random.normal(size=(6, 4))), unit(random.normal(size=(9, 4)) + 0.3)
    found = discrepancy(one, other, permutations=50, seed=7)
    again = np.random.default_rng(7)
    together = np.concatenate([one, other])
    values = [naive(one, other)]
    for _ in range(50):
        order = again.permutation(15)
        values.append(naive(together[order[:6]], together[np.sort(order[6:])]))
    assert found.p == pytest.approx(np.mean(np.array(values) >= values[0]))


def test_p_is_uniform_where_nothing_changed() -> None:
    digits = unit(load_digits().data)
    random = np.random.default_rng(2)
    ps = []
    for seed in range(300):
        chosen = random.choice(len(digits), 120, replace=False)
        ps.append(discrepancy(digits[chosen[:80]], digits[chosen[80:]], permutations=100, seed=seed).p)
    distance = np.abs(np.sort(ps) - np.arange(1, 301) / 300).max()
    assert distance < 1.63 / np.sqrt(300)  # Kolmogorov and Smirnov at 1 %
    assert np.mean(np.array(ps) < 0.05) < 0.09


def test_a_class_that_was_not_there_is_found() -> None:
    digits = load_digits()
    embeddings, labels = unit(digits.data), digits.target
    old, new = embeddings[labels != 3], embeddings[labels == 3]
    random = np.random.default_rng(3)
    mixed = np.concatenate([random.permutation(old)[:75], random.permutation(new)[:25]])
    found = discrepancy(random.permutation(old)[:600], mixed)
    assert found.p < 0.01
    assert found.mmd2 > 5 * abs(discrepancy(old[::2], old[1::2]).mmd2)


def test_the_same_seed_is_the_same_answer() -> None:
    digits = unit(load_digits().data)
    first, again = (discrepancy(digits[:200], digits[200:300], seed=4) for _ in range(2))
    assert first == again


def test_one_embedding_is_too_few() -> None:
    with pytest.raises(ValueError, match="1 and 5 embeddings"):
        discrepancy(np.ones((1, 2), np.float32), np.ones((5, 2), np.float32))
