"""The load generator against a real server: what is counted, by when, and percentiles."""

import random
import time

import numpy as np
import pytest

from benchmarks.serving.load import Closed, Open, Target, outcome, percentile, run
from benchmarks.tools.child import ChildError
from tests.benchmarks.local_server import LocalServer, reply, stalls

REQUESTS = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nbody%d" % number for number in range(3)]


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 100, 101])
@pytest.mark.parametrize("share", [0.5, 50, 95, 99, 100])
def test_percentiles_are_those_of_their_definition(count: int, share: float) -> None:
    values = sorted(random.Random(count).choices(range(50), k=count))
    naive = min(value for value in values if sum(other <= value for other in values) >= share / 100 * count)
    assert percentile(values, share) == naive
    assert percentile(values, share) == np.percentile(values, share, method="inverted_cdf")


def test_percentiles_of_nothing_and_of_nonsense() -> None:
    assert percentile([], 50) is None
    with pytest.raises(ValueError, match="share is 0"):
        percentile([1.0], 0)


def test_figures_are_those_of_good_replies() -> None:
    counted = {"latencies_ms": [4.0, 1.0, 3.0, 2.0], "late_ms": [], "statuses": {"200": 4, "503": 2, "0": 1}, "done": 4}
    found = outcome(counted | {"seconds": 2.0, "cpu_seconds": 0.1, "sent": 9, "answered": 8})
    assert (found.requests, found.errors) == (4, {"0": 1, "503": 2})
    assert (found.per_second, found.generator_cpu) == (2.0, 0.05)
    assert (found.p50_ms, found.p95_ms, found.max_ms, found.late_p99_ms) == (2.0, 4.0, 4.0, None)


def test_a_closed_loop_counts_what_the_server_counts() -> None:
    moments: list[str] = []
    with LocalServer() as server:
        found = run(Target(server.port, REQUESTS), Closed(5, seconds=0.5, warm_up=0.2), at=moments.append)
    assert moments == ["begins", "ends"]
    assert found.sent == found.answered == server.count
    assert 0 < found.requests < server.count
    assert found.errors == {}
    assert set(server.bodies) == {b"body0", b"body1", b"body2"}
    assert found.per_second == pytest.approx(found.requests / found.seconds, abs=5 / found.seconds)


def test_a_server_that_answers_in_bursts_gets_its_average() -> None:
    """4 clients, 4 replies every 0.2 s: 20 a second, of which a window of 0.5 s would see 16 or 24."""

    def script(number: int) -> bytes:
        if number % 4 == 0:
            time.sleep(0.2)
        return reply()

    with LocalServer(script) as server:
        found = run(Target(server.port, REQUESTS), Closed(4, seconds=0.5, warm_up=0.3))
    assert found.requests in (8, 12)
    assert found.per_second == pytest.approx(20, rel=0.1)


def test_a_closed_loop_may_end_by_its_requests() -> None:
    with LocalServer() as server:
        found = run(Target(server.port, REQUESTS), Closed(2, seconds=60, warm_up=0, requests=20))
    assert 20 <= found.requests <= server.count
    assert found.seconds < 30


def test_errors_are_counted_by_status() -> None:
    script = {0: reply(503), 1: reply(422, b"bad"), 2: b""}
    with LocalServer(lambda number: script.get(number % 5, reply())) as server:
        found = run(Target(server.port, REQUESTS), Closed(1, seconds=60, warm_up=0, requests=50))
    assert set(found.errors) == {"0", "422", "503"}
    assert found.sent == server.count
    every = sum(found.errors.values()) + found.requests
    assert found.errors == {status: pytest.approx(every / 5, abs=1) for status in found.errors}


def test_a_server_that_is_not_there_is_an_error() -> None:
    with LocalServer() as server:
        port = server.port
    with pytest.raises(ChildError, match=f"{port} takes no connection"):
        run(Target(port, REQUESTS), Closed(1, seconds=1))


def test_an_open_loop_sends_what_was_scheduled() -> None:
    with LocalServer() as server:
        found = run(Target(server.port, REQUESTS), Open(50, seconds=1, warm_up=0.5))
    assert server.count == found.sent == 75
    assert found.requests == 50
    assert found.seconds == 1.0
    assert found.late_p99_ms is not None


def test_a_stall_is_charged_to_every_arrival_that_it_held_up() -> None:
    """What a naive simulation of the queue says: an arrival during the stall waits until the stall is over."""
    rate, stall, total = 100, 0.5, 150
    held = sorted(max(0.0, stall - (number - 50) / rate) if number >= 50 else 0.0 for number in range(total))
    with LocalServer(stalls(50, stall)) as server:
        found = run(Target(server.port, REQUESTS), Open(rate, seconds=total / rate, warm_up=0))
    assert found.requests == total
    for share, measured in ((95, found.p95_ms), (99, found.p99_ms), (100, found.max_ms)):
        simulated = percentile(held, share)
        assert measured is not None
        assert simulated is not None
        assert simulated > 0.3
        assert measured >= 1000 * simulated - 15
    with LocalServer(stalls(50, stall)) as server:
        closed = run(Target(server.port, REQUESTS), Closed(1, seconds=1.5, warm_up=0))
    assert closed.p95_ms is not None
    assert closed.p95_ms < 300, "a closed loop does not see the stall but once"


def test_an_open_loop_opens_no_more_connections_than_it_may() -> None:
    with LocalServer(stalls(5, 0.3)) as server:
        found = run(Target(server.port, REQUESTS), Open(100, seconds=0.5, warm_up=0, most_connections=2))
    assert found.requests == server.count == 50
    assert found.max_ms is not None
    assert found.max_ms >= 250


def test_replies_that_never_come_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving.load._DRAIN_SECONDS", 0.2)
    with LocalServer(lambda number: reply() if number < 10 else b"HTTP/1.1 200 OK\r\n") as server:
        found = run(Target(server.port, REQUESTS), Open(50, seconds=0.4, warm_up=0))
    assert found.requests == 10
    assert found.errors == {"0": 10}


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (lambda: Closed(0, seconds=1), "clients is 0"),
        (lambda: Closed(1, seconds=0), "seconds is 0"),
        (lambda: Open(0.1, seconds=1), "at least one arrival"),
        (lambda: Open(float("nan"), seconds=1), "rate is nan"),
    ],
)
def test_nonsense_is_refused(load: object, why: str) -> None:
    assert callable(load)
    with pytest.raises(ValueError, match=why):
        load()
