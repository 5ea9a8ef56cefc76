"""Token buckets, with the time given."""

import pytest

from serving.gateway.access.rates import Rates
from serving.protocol.messages import RequestError


def served(rates: Rates, rate: float, times: list[float], name: str = "a") -> int:
    """How many requests at these times are let through."""
    count = 0
    for now in times:
        try:
            rates.take(name, rate, now)
            count += 1
        except RequestError:
            continue
    return count


@pytest.mark.parametrize(("rate", "burst"), [(0.25, 1), (0.5, 1), (1, 2), (10, 20), (333, 666)])
def test_a_burst_is_two_seconds_worth_and_at_least_one(rate: float, burst: int) -> None:
    rates = Rates()
    assert served(rates, rate, [100.0] * (burst + 50)) == burst
    assert served(rates, rate, [1000.0] * (burst + 50)) == burst  # full again, and not fuller


@pytest.mark.parametrize("rate", [0.25, 1, 10, 333])
def test_a_steady_key_has_its_rate(rate: float) -> None:
    rates = Rates()
    burst = max(1, int(2 * rate))
    seconds = 40
    tries = [at / (3 * rate) for at in range(int(3 * rate * seconds))]
    assert served(rates, rate, tries) == pytest.approx(burst + rate * seconds, abs=1.01)


@pytest.mark.parametrize(("rate", "retry_after"), [(10, 1), (0.1, 10), (0.3, 4)])
def test_a_refusal_says_when_to_try_again(rate: float, retry_after: int) -> None:
    rates = Rates()
    served(rates, rate, [0.0] * 30)
    with pytest.raises(RequestError, match="the key a may make") as refused:
        rates.take("a", rate, 0.0)
    assert (refused.value.status, refused.value.retry_after) == (429, retry_after)
    rates.take("a", rate, float(retry_after))


def test_one_key_does_not_take_from_another() -> None:
    rates = Rates()
    served(rates, 1, [0.0] * 9)
    assert served(rates, 1, [0.0] * 9, name="b") == 2


def test_full_buckets_are_forgotten() -> None:
    rates = Rates()
    for at in range(1000):
        rates.take(f"key{at}", 5, 0.0)
    rates.take("slow", 0.001, 0.0)
    assert len(rates) == 1001
    rates.take("late", 5, 100.0)
    assert len(rates) == 2  # slow's needs a thousand seconds
    with pytest.raises(RequestError):
        rates.take("slow", 0.001, 100.0)
