"""Rows, their medians, and what they come to."""

from collections.abc import Iterator

import pytest

from benchmarks.serving.ratios import extra_ms_of_one_client, ratios
from benchmarks.serving.rows import Key, Row, median_rows, table
from benchmarks.serving.scenarios import FULL, PARTIES, QUICK_PLAN, Party, Plan, Scenario

RATES: dict[Party, float] = {"ceiling": 200, "ours": 180, "litserve": 120, "torch": 40, "bulk": 190}


def rows_of(plan: Plan) -> Iterator[Row]:
    """A row for all that a plan measures, at 32 and 224 px (where all is 10 times slower)."""
    for px, factor in ((32, 1.0), (224, 0.1)):
        for party in PARTIES:
            rate = RATES[party] * factor
            if party in ("ceiling", "bulk"):
                yield Row(Key(party, px, 1, "-", "saturated"), images_per_s=rate)
                yield Row(Key(party, px, 1, "-", "alone"), p50_ms=10.0)
                continue
            for scenario in plan.scenarios(party, large=px == 224):
                key = Key(party, px, scenario.images, scenario.reply, scenario.name)
                reached = rate * (0.5 if scenario.clients == 1 else 1.0) * (1.1 if scenario.images > 1 else 1.0)
                yield Row(key, images_per_s=reached, p50_ms=12.0, p99_ms=30.0)


@pytest.mark.parametrize("plan", [QUICK_PLAN, Plan()])
def test_both_plans_measure_every_ratio(plan: Plan) -> None:
    rows = [*rows_of(plan)]
    assert ratios(rows, small=32, large=224) == {
        "single_32_vs_ceiling": 0.9,
        "single_224_vs_ceiling": 0.9,
        "multi16_32_vs_ceiling": 0.99,
        "vs_torch_fp32": 4.5,
        "vs_litserve": 1.5,
        "bulk_vs_ceiling": 0.95,
        "p99_over_p50_at_half_load": 2.5,
    }
    assert extra_ms_of_one_client(rows, 32) == 2.0


def test_what_was_not_measured_is_none() -> None:
    rows = [Row(Key("ours", 32, 1, "json", "closed, 64"), images_per_s=100.0)]
    assert set(ratios(rows, small=32, large=224).values()) == {None}
    assert extra_ms_of_one_client(rows, 32) is None


def test_medians_are_of_each_row_over_the_rounds() -> None:
    one, other = Key("ours", 32, 1, "json", "closed, 1"), Key("ours", 32, 1, "json", "closed, 16")
    rounds = [
        Row(one, images_per_s=1.0, p50_ms=None, errors={"503": 1}),
        Row(other, images_per_s=7.0),
        Row(one, images_per_s=9.0, p50_ms=4.0, errors={"503": 2, "0": 1}),
        Row(one, images_per_s=2.0, p50_ms=6.0),
    ]
    found = median_rows(rounds)
    assert [row.key for row in found] == [one, other]
    assert found[0] == Row(one, images_per_s=2.0, p50_ms=5.0, errors={"503": 3, "0": 1})
    assert found[0].to_json()["px"] == 32
    text = table(found).splitlines()
    assert len({len(line.partition("  errors")[0]) for line in text}) == 1
    assert "3 of status 503" in text[1]


def test_open_loops_come_when_a_capacity_is_known() -> None:
    closed = [scenario.clients > 0 for scenario in FULL]
    assert closed == sorted(closed, reverse=True)
    assert Scenario(share=0.5).name == "open, 50%"
    assert Plan(seconds=4).load(Scenario(share=0.5), 80.0) == Plan(seconds=4).load(Scenario(share=0.8), 50.0)
