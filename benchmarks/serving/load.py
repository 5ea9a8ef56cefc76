"""Load on a server, from a process of its own: what to send, in a closed or an open loop, and what came of it.

`run` starts `benchmarks.serving.generator`, which holds the two loops to what `benchmarks.serving.loops` says of them.
Latencies are those of good replies (2xx); everything else is counted by status, 0 where no reply came. That the
generator is not what limits a server is shown with each result (its CPU seconds, how late it was) and by
`benchmarks.serving.load_limit`. The requests come from `benchmarks.serving.requests_of`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tools.child import Child, ChildError

_DRAIN_SECONDS = 30.0


@dataclass(frozen=True)
class Target:
    """Where to send, and the requests as bytes, sent in turn."""

    port: int
    requests: Sequence[bytes]
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Closed:
    """`clients` that wait for their answers; counts for `seconds`, or until `requests` were answered (0: no bound)."""

    clients: int
    seconds: float
    warm_up: float = 1.0
    requests: int = 0

    def __post_init__(self) -> None:
        _at_least("clients", self.clients, least=1)
        _at_least("requests", self.requests, least=0)
        _check_times(self.seconds, self.warm_up)


@dataclass(frozen=True)
class Open:
    """`rate` arrivals a second, evenly spaced, over at most `most_connections`."""

    rate: float
    seconds: float
    warm_up: float = 1.0
    most_connections: int = 256

    def __post_init__(self) -> None:
        _check_times(self.seconds, self.warm_up)
        _at_least("most_connections", self.most_connections, least=1)
        if not 0 < self.rate < math.inf or round(self.rate * self.seconds) < 1:
            raise ValueError(f"rate is {self.rate:g} a second for {self.seconds:g} s; at least one arrival is needed")


Load = Closed | Open


@dataclass(frozen=True)
class Outcome:
    """What came of a load. Latencies in ms are None where nothing was answered well.

    `requests` were answered well, `errors` were not, by status; `per_second` counts a request that began before or
    ended behind a closed loop's window by its part inside; `late_p99_ms` is how late the generator itself was in
    an open loop, and `generator_cpu` the share of one core that it took. `sent` and `answered` have the warm-up too.
    """

    requests: int
    errors: dict[str, int]
    per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    late_p99_ms: float | None
    generator_cpu: float
    generator_cpu_seconds: float
    seconds: float
    sent: int
    answered: int


def run(target: Target, load: Load, *, at: Callable[[str], None] = lambda moment: None) -> Outcome:
    """Put a load on a server; `at` is called with "begins" and "ends" when the window does.

    Raises `ChildError` if the server takes no connection at all.
    """
    if not target.requests:
        raise ValueError("requests is empty; a load needs at least one request")
    with Child("benchmarks.serving.generator") as generator:
        generator.tell(_plan(target, load), target.requests)
        while "window" in (message := generator.hear()):
            at(message["window"])
    if "error" in message:
        raise ChildError(message["error"])
    return outcome(message)


def outcome(counted: dict[str, Any]) -> Outcome:
    """The figures of what a generator counted."""
    latencies, late = sorted(counted["latencies_ms"]), sorted(counted["late_ms"])
    seconds, cpu = counted["seconds"], counted["cpu_seconds"]
    good = {status: count for status, count in counted["statuses"].items() if 200 <= int(status) < 300}
    return Outcome(
        requests=sum(good.values()),
        errors={status: count for status, count in sorted(counted["statuses"].items()) if status not in good},
        per_second=counted["done"] / seconds,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        max_ms=percentile(latencies, 100),
        late_p99_ms=percentile(late, 99),
        generator_cpu=cpu / seconds,
        generator_cpu_seconds=cpu,
        seconds=seconds,
        sent=counted["sent"],
        answered=counted["answered"],
    )


def percentile(ascending: Sequence[float], share: float) -> float | None:
    """The least of the values that at least `share` percent of them do not exceed; None of nothing."""
    if not 0 < share <= 100:
        raise ValueError(f"share is {share}; it must be above 0 and at most 100")
    if not ascending:
        return None
    return ascending[math.ceil(share * len(ascending) / 100) - 1]


def _plan(target: Target, load: Load) -> dict[str, Any]:
    loop = "closed" if isinstance(load, Closed) else "open"
    return {"host": target.host, "port": target.port, "loop": loop, "drain": _DRAIN_SECONDS, **vars(load)}


def _check_times(seconds: float, warm_up: float) -> None:
    if not 0 < seconds < math.inf or not 0 <= warm_up < math.inf:
        raise ValueError(f"seconds is {seconds:g} and warm_up {warm_up:g}; above 0 and at least 0 are needed")


def _at_least(name: str, value: int, *, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be {least} or more")
