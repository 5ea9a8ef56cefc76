"""What is left of the service at ten times its load, how soon it is itself again, and what slow clients cost others.

    python -m benchmarks.serving.overload --images cifar10-images.zip [--quick]

ResNet-50 of random weights (speed is measured, not quality) at 32 px with the stem `small_stride2`; load by wrk. First
the peak: 64 clients in a closed loop. Then `--seconds` of arrivals at `--times` the peak, from a few thousand
connections: good answers a second as a share of the peak, statuses, and the most memory of all processes beyond that
before. Then how long it takes until 16 clients are served at their usual p50. Then 16 clients alone, and again beside
200 connections that drip and 100 uploads of 60 MB that stop half-way. The last line is JSON.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.serving import servers, wrk
from benchmarks.serving.crowd import Crowd, meet
from benchmarks.serving.gateway import cases
from benchmarks.serving.requests_of import OURS, requests_of
from benchmarks.serving.servers import Running
from benchmarks.tools.child import Child
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.usage import busy_share, cpu_seconds, memory
from core.command_line.command import main
from core.machine.machine import default_workers

_CLIENTS, _FEW = 64, 16
_SAMPLE_SECONDS = 0.5
_AS_USUAL = 1.25  # times the p50 before
_PATIENCE = 5.0  # seconds: the server's --max-wait, and how many seconds' worth of the crowd stand in line
_MOST_CONNECTIONS = 3800  # the gateway takes 4,000
_SLOW, _UPLOADS = 200, 100


class Peak:
    """The most memory (PSS, MiB) of the processes while it is watched, beyond that before."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._before = self._most = memory(*pids).pss
        self._over = threading.Event()

    @property
    def more(self) -> float:
        """MiB beyond those before."""
        return self._most - self._before

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look twice a second."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._most = max(self._most, memory(*self._pids).pss)


@dataclass(frozen=True)
class Subject:
    """A server and what it is sent."""

    running: Running
    requests: Sequence[bytes]

    def closed(self, clients: int, *, seconds: float) -> wrk.Loaded:
        """What clients get that wait for their answers."""
        return wrk.load(self.running.port, self.requests, clients=clients, seconds=seconds)


def overload(subject: Subject, *, peak: float, times: float, seconds: float) -> Figures:
    """What comes of arrivals at so many times the peak."""
    rate = times * peak
    waiting = round(_PATIENCE * peak)
    connections = min(_MOST_CONNECTIONS, round(waiting + rate))
    crowd = Crowd(subject.running.port, subject.requests, rate, connections, waiting)
    held, before = Peak(subject.running.pids), cpu_seconds(subject.running.pids[1])
    with held.watched():
        met = meet(crowd, seconds=seconds)
    gateway = cpu_seconds(subject.running.pids[1]) - before
    return {
        "arrivals_per_second": round(met.per_second, 1),
        "connections": connections,
        "good_per_second": round(met.good_per_second, 1),
        "share_of_peak": round(met.good_per_second / peak, 3),
        "statuses": met.statuses,
        "503_without_retry_after": met.without_retry_after,
        "broken": met.broken,
        "memory_mb": round(held.more, 1),
        "gateway_cores": round(gateway / met.seconds, 3),
        "wrk_cores": round(met.generator_cpu_seconds / met.seconds, 3),
    }


def recovery(subject: Subject, *, p50: float, most: float = 60.0) -> float:
    """Seconds until 16 clients are served as they were before, looked at second by second; at `most` it is given up."""
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < most:
        found = subject.closed(_FEW, seconds=1)
        if found.refused == found.broken == 0 and 0 < found.p50_ms <= _AS_USUAL * p50:
            break
    return passed


def beside_slow_clients(subject: Subject, quiet: wrk.Loaded, *, seconds: float) -> Figures:
    """What 16 clients get beside those that drip and stop."""
    held = Peak(subject.running.pids)
    with Child("benchmarks.serving.slow_clients") as slow, held.watched():
        slow.tell({"port": subject.running.port, "slow": _SLOW, "uploads": _UPLOADS})
        found = subject.closed(_FEW, seconds=seconds)
        slow.tell({})
        dropped = slow.hear()["dropped"]
    return {
        "quiet_p50_ms": round(quiet.p50_ms, 2),
        "quiet_p99_ms": round(quiet.p99_ms, 2),
        "p50_ms": round(found.p50_ms, 2),
        "p99_ms": round(found.p99_ms, 2),
        "p99_ratio": round(found.p99_ms / quiet.p99_ms, 3),
        "refused": found.refused + found.broken,
        "dropped": dropped,
        "memory_mb": round(held.more, 1),
    }


def _measured(subject: Subject, options: argparse.Namespace) -> Figures:
    short, long = (4.0, 10.0) if options.quick else (10.0, options.seconds)
    with tqdm(total=5, desc="parts") as parts:
        subject.closed(_CLIENTS, seconds=3)
        peak = subject.closed(_CLIENTS, seconds=short)
        parts.update()
        usual = subject.closed(_FEW, seconds=short)
        parts.update()
        over = overload(subject, peak=peak.per_second, times=options.times, seconds=long)
        parts.update()
        recovered = recovery(subject, p50=usual.p50_ms)
        parts.update()
        quiet = subject.closed(_FEW, seconds=long)
        slow = beside_slow_clients(subject, quiet, seconds=long)
        parts.update()
    return {
        "peak_per_second": round(peak.per_second, 1),
        "overload": over,
        "recovery_seconds": round(recovered, 1),
        "slow_clients": slow,
    }


def _measure(options: argparse.Namespace) -> Figures:
    if not wrk.available():
        raise RuntimeError("wrk is not installed; on Debian: apt install wrk")
    with tempfile.TemporaryDirectory() as work:
        case = next(cases(options.images, Path(work), quick=True))
        busy = busy_share(2.0)
        with servers.serving(case.archive, workers=default_workers(), form=case.form) as running:
            subject = Subject(running, requests_of(OURS, case.jpegs, images=1, reply="json"))
            found = _measured(subject, options)
    _show(found)
    return {**found, "busy_before": round(busy, 2)}


def _show(found: dict[str, Any], before: str = "") -> None:
    for name, value in found.items():
        if isinstance(value, dict) and name not in ("statuses", "dropped"):
            _show(value, f"{before}{name} ")
        else:
            print(f"{before + name:<44}{value!s:>24}")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="a folder or a zip with real JPEG files")
    add("--times", type=float, default=10.0, help="arrivals, as a multiple of the peak (default: %(default)s)")
    add("--seconds", type=float, default=60.0, help="of overload, and beside slow clients (default: %(default)s)")
    add("--quick", action="store_true", help="10 s of each")


COMMAND = benchmark("benchmarks.serving.overload", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
