"""Verdicts on values worked out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.comparison import gates
from export.comparison.speed import Pace
from export.comparison.thresholds import THRESHOLDS

HEALTHY = {"spread": 0.6, "rankme": 40.0}


def scores(count: int, right: int) -> NDArray[np.bool_]:
    return np.arange(count) < right


def test_a_loss_beyond_chance_is_refused_though_it_is_small() -> None:
    gate, found = gates.not_worse("probe", scores(5_000, 4_000), scores(5_000, 4_050), THRESHOLDS)
    assert found.high < 0
    assert found.mean == pytest.approx(-0.01)
    assert not gate.passed
    assert gates.failures([gate])[0].startswith(
        "probe: worse than the champion beyond chance: -1.0 points on 5000 images"
    )


def test_a_large_loss_is_refused_though_it_may_be_chance() -> None:
    champion = scores(300, 150)
    challenger = champion.copy()
    challenger[:48] = False
    challenger[150:190] = True
    gate, found = gates.not_worse("knn", challenger, champion, THRESHOLDS)
    assert found.low < 0 < found.high
    assert not gate.passed
    assert gate.why.startswith("worse than the champion by more than 2.0 points: -2.7 points on 300 images")


def test_few_images_lost_of_a_tiny_test_split_are_no_reason() -> None:
    draw = np.random.default_rng(3)
    champion = draw.random(60) < 0.5
    challenger = champion.copy()
    challenger[np.flatnonzero(champion)[:6]] = False
    challenger[np.flatnonzero(~champion)[:3]] = True
    gate, found = gates.not_worse("probe", challenger, champion, THRESHOLDS)
    assert found.mean == pytest.approx(-0.05)  # five points, but three images
    assert gate.passed
    assert gate.bound == pytest.approx(champion.mean() - 5 / 60)


def test_a_gain_passes() -> None:
    gate, _ = gates.not_worse("probe", scores(100, 90), scores(100, 70), THRESHOLDS)
    assert gate.passed


def test_a_collapse_is_refused_by_name() -> None:
    nothing = gates.not_collapsed({"spread": 0.01, "rankme": 1.2}, 500, THRESHOLDS)
    assert [gate.name for gate in nothing if not gate.passed] == ["spread", "rankme"]
    assert all(gate.passed for gate in gates.not_collapsed(HEALTHY, 500, THRESHOLDS))
    assert not gates.dimensions_kept(19, 40, THRESHOLDS).passed
    assert gates.dimensions_kept(21, 40, THRESHOLDS).passed


def test_not_a_number_never_passes() -> None:
    nothing = float("nan")
    found = [
        *gates.not_collapsed({"spread": nothing, "rankme": nothing}, 500, THRESHOLDS),
        gates.dimensions_kept(nothing, 40, THRESHOLDS),
        gates.not_below_random(nothing, 0.2, 60),
        gates.parity({"onnx": {"embedding_difference": nothing}}),
        gates.not_worse("agreement", np.full(20, nothing), np.ones(20), THRESHOLDS)[0],
    ]
    assert not any(gate.passed for gate in found)


@pytest.mark.parametrize(
    ("times", "passed"),
    [
        ([[10, 9], [40, 9]], True),  # slow once: something else was at work
        ([[12, 9], [13, 9]], False),
        ([[1.9, 1], [1.9, 1]], True),  # below a millisecond more
    ],
)
def test_time_is_judged_by_the_fastest_round(times: list[list[float]], passed: bool) -> None:
    assert gates.quick("one_image_ms", Pace(np.array(times)), THRESHOLDS).passed is passed


@pytest.mark.parametrize(("work", "passed"), [(1.0, True), (1.2, True), (1.3, False)])
def test_a_wait_that_costs_no_processor_time_is_the_machines(work: float, passed: bool) -> None:
    pace = Pace(np.array([[20.0, 10.0]]), np.array([[work * 8, 8.0]]))
    gate = gates.quick("one_image_ms", pace, THRESHOLDS)
    assert gate.passed is passed
    assert f"{work:.2f} times its processor time" in gate.why


def test_a_file_may_grow_by_a_quarter() -> None:
    assert gates.small(125, 100, THRESHOLDS).passed
    assert not gates.small(126, 100, THRESHOLDS).passed


def test_a_first_probe_beats_chance_and_is_not_below_a_random_encoders() -> None:
    assert not gates.above_chance(scores(60, 6), 0.1).passed
    assert gates.above_chance(scores(60, 7), 0.1).passed
    assert not gates.not_below_random(0.30, 0.40, 5_000).passed
    assert gates.not_below_random(0.38, 0.40, 60).passed
