"""The paired bootstrap against resampling in a loop, the normal approximation, and McNemar's exact test."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, norm

from export.comparison.bootstrap import Difference, paired_difference


def difference(challenger: NDArray[np.generic], champion: NDArray[np.generic]) -> Difference:
    return paired_difference(challenger, champion, confidence=0.95, resamples=10_000)


def right(count: int, better: int, worse: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two encoders that differ on some of the images."""
    challenger, champion = np.ones(count, np.bool_), np.ones(count, np.bool_)
    champion[:better] = False
    challenger[better : better + worse] = False
    return challenger, champion


@pytest.mark.parametrize(("count", "better", "worse"), [(60, 4, 9), (400, 30, 12), (3_000, 200, 260)])
def test_the_interval_is_that_of_resampling_images_in_a_loop(count: int, better: int, worse: int) -> None:
    challenger, champion = right(count, better, worse)
    draw = np.random.default_rng(1)
    rows = [draw.integers(0, count, count) for _ in range(4_000)]
    means = [challenger[at].mean() - champion[at].mean() for at in rows]
    found = difference(challenger, champion)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.mean == pytest.approx((better - worse) / count)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_of_many_images_it_is_the_normal_approximation() -> None:
    challenger, champion = right(5_000, 300, 420)
    each = challenger.astype(float) - champion
    reach = norm.ppf(0.975) * each.std() / np.sqrt(len(each))
    found = difference(challenger, champion)
    assert found.low == pytest.approx(each.mean() - reach, abs=0.03 * reach)
    assert found.high == pytest.approx(each.mean() + reach, abs=0.03 * reach)


@pytest.mark.parametrize(("better", "worse"), [(3, 9), (10, 10), (0, 6), (0, 0)])
def test_p_is_the_exact_test_of_mcnemar(better: int, worse: int) -> None:
    found = difference(*right(100, better, worse))
    fewer, both = min(better, worse), better + worse
    assert found.p == pytest.approx(min(1.0, 2 * float(binom.cdf(fewer, both, 0.5))) if both else 1.0)


def test_scores_that_are_halves_are_resampled_too() -> None:
    draw = np.random.default_rng(0)
    challenger, champion = (draw.integers(0, 3, 500) / 2 for _ in range(2))
    each = challenger - champion
    found = difference(challenger, champion)
    reach = norm.ppf(0.975) * each.std() / np.sqrt(500)
    assert found.low == pytest.approx(each.mean() - reach, abs=0.05 * reach)


def test_equal_encoders_differ_by_nothing_and_the_seed_is_fixed() -> None:
    same = np.array([True, False, True])
    assert difference(same, same) == Difference(0, 0, 0, 1)
    assert difference(*right(60, 4, 9)) == difference(*right(60, 4, 9))
