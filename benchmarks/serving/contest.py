"""All parties in turn, round after round: the ceiling, our server, LitServe, plain torch, bulk embedding.

A server is started for its turn and stopped after it, so that none takes another's cores; in its first turn its
embeddings are compared with the in-process ones. The best settings of the ceiling and of LitServe are found by
measuring, once for each image size. `benchmarks.serving.scenarios` has what is run, `benchmarks.serving.ratios` what it
comes to.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.serving import bulk, ceiling, servers
from benchmarks.serving.load import Closed, Load, Outcome, Target, run
from benchmarks.serving.requests_of import requests_of
from benchmarks.serving.rows import Key, Row
from benchmarks.serving.same_answers import check, reference
from benchmarks.serving.scenarios import Party, Plan, Scenario
from benchmarks.serving.servers import Running
from benchmarks.serving.subjects import LARGE, Subject
from benchmarks.tools.usage import cpu_seconds, memory
from core.machine.machine import usable_cores

logger = logging.getLogger(__name__)

_CHOOSING = Scenario(64)


@dataclass
class Contest:
    """One run of the benchmark, that began at `began` (monotonic seconds).

    `workers` and `cache_mb` are our server's. `chosen` has the settings that were found by measuring, `cosines` the
    least one of each server.
    """

    subjects: dict[int, Subject]
    plan: Plan
    parties: Sequence[Party]
    workers: int
    cache_mb: int = 0
    began: float = field(default_factory=time.monotonic)
    chosen: dict[str, Any] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)
    rounds: int = 0
    _choosing: float = 0.0
    _settings: dict[int, ceiling.Setting] = field(default_factory=dict)
    _litserve_workers: dict[int, int] = field(default_factory=dict)
    _capacities: dict[tuple[Party, int], float] = field(default_factory=dict)

    def run(self) -> list[Row]:
        """Every row of every round; a further round begins only if the plan's limit leaves time for it."""
        rows: list[Row] = []
        round_seconds = 0.0
        while self.rounds < self.plan.rounds and self._time_for(round_seconds):
            self.rounds += 1
            logger.info("round %d of %d", self.rounds, self.plan.rounds)
            began, self._choosing = time.monotonic(), 0.0
            for nominal, subject in self.subjects.items():
                for party in self.parties:
                    rows += self._turn(party, subject, large=nominal == LARGE)
            round_seconds = time.monotonic() - began - self._choosing
        return rows

    def _time_for(self, seconds: float) -> bool:
        left = self.plan.limit - (time.monotonic() - self.began)
        return not self.plan.limit or self.rounds == 0 or seconds <= left

    def _turn(self, party: Party, subject: Subject, *, large: bool) -> list[Row]:
        if party == "ceiling":
            return self._ceiling(subject, large=large)
        if party == "bulk":
            return self._bulk(subject)
        scenarios = self.plan.scenarios(party, large=large)
        if not scenarios:
            return []
        self._capacities.pop((party, subject.size), None)
        with self._start(party, subject) as running:
            self._check(party, running, subject=subject)
            self._settle(running, subject)
            return [
                row for scenario in scenarios for row in self._load(party, running, subject=subject, scenario=scenario)
            ]

    def _ceiling(self, subject: Subject, *, large: bool) -> list[Row]:
        work = ceiling.Work(subject.file, subject.size, subject.jpegs)
        if subject.size not in self._settings:
            batches = self.plan.large_batches if large else self.plan.batches
            with self._chosen():
                best, tried = ceiling.best_setting(work, seconds=self.plan.choosing, batches=batches)
            self._settings[subject.size] = best
            self.chosen[f"ceiling_{subject.size}"] = {"best": str(best), "images_per_s": tried}
        rate = ceiling.images_per_second(work, self._settings[subject.size], seconds=self.plan.seconds)
        alone = ceiling.single_image_ms(work, seconds=self.plan.seconds)
        self._capacities["ceiling", subject.size] = rate
        rows = [
            Row(_key("ceiling", subject, load="saturated"), requests_per_s=rate, images_per_s=rate),
            Row(_key("ceiling", subject, load="alone"), p50_ms=alone),
        ]
        return [_told(row) for row in rows]

    def _bulk(self, subject: Subject) -> list[Row]:
        expected = self._capacities.get(("ceiling", subject.size), 50.0)
        rate = bulk.images_per_second(subject, expected=expected, seconds=self.plan.seconds)
        return [_told(Row(_key("bulk", subject, load="saturated"), images_per_s=rate))]

    def _start(self, party: Party, subject: Subject) -> AbstractContextManager[Running]:
        starts: dict[Party, Callable[[], AbstractContextManager[Running]]] = {
            "ours": lambda: servers.ours(subject, workers=self.workers, cache_mb=self.cache_mb),
            "litserve": lambda: servers.litserve(subject, workers=self._best_litserve(subject)),
            "torch": lambda: servers.plain_torch(subject),
        }
        return starts[party]()

    def _best_litserve(self, subject: Subject) -> int:
        """1 worker or as many as there are cores: whichever serves 64 clients faster."""
        if subject.size not in self._litserve_workers:
            with self._chosen():
                rates = {workers: self._try_litserve(subject, workers) for workers in sorted({1, usable_cores()})}
            self._litserve_workers[subject.size] = max(rates, key=lambda workers: rates[workers])
            self.chosen[f"litserve_{subject.size}"] = {
                "best": f"{self._litserve_workers[subject.size]} workers",
                "images_per_s": {f"{workers} workers": round(rate, 2) for workers, rate in rates.items()},
            }
        return self._litserve_workers[subject.size]

    @contextmanager
    def _chosen(self) -> Iterator[None]:
        """What is measured in here is done once, and no part of a round's time."""
        began = time.monotonic()
        yield
        self._choosing += time.monotonic() - began

    def _try_litserve(self, subject: Subject, workers: int) -> float:
        load = Closed(_CHOOSING.clients, seconds=self.plan.choosing, warm_up=self.plan.warm_up)
        with servers.litserve(subject, workers=workers) as running:
            return measure(running, subject, scenario=_CHOOSING, load=load)[0].per_second

    def _check(self, party: Party, running: Running, *, subject: Subject) -> None:
        name = f"{party}_{subject.size}"
        if name not in self.cosines:
            self.cosines[name] = check(running, subject, wanted=reference(subject), name=party)
            logger.info("%s, %d px: least cosine %.6f", party, subject.size, self.cosines[name])

    def _settle(self, running: Running, subject: Subject) -> None:
        """Requests that nobody counts: Java compiles what is used often, and pools fill."""
        load = Closed(_CHOOSING.clients, seconds=self.plan.warm_up, warm_up=0)
        measure(running, subject, scenario=_CHOOSING, load=load)

    def _load(self, party: Party, running: Running, *, subject: Subject, scenario: Scenario) -> list[Row]:
        """One row, or none where the server can't be asked so, or is slower than the arrivals would be."""
        own = self._capacities.get((party, subject.size), 0.0)
        ours = self._capacities.get(("ours", subject.size), own)
        if not scenario.suits(running.dialect):
            return []
        if not scenario.clients and scenario.share * ours >= own:
            logger.info("%s can't answer %.1f requests a second: no %s", party, scenario.share * ours, scenario.name)
            return []
        found, usage = measure(running, subject, scenario=scenario, load=self.plan.load(scenario, ours))
        if scenario.tells_capacity:
            self._capacities[party, subject.size] = max(own, found.per_second)
        return [_told(_row(_key(party, subject, load=scenario.name, scenario=scenario), found, usage=usage))]


@dataclass
class Usage:
    """What a server's processes took in the window, noted as it begins and ends."""

    pids: Sequence[int]
    _began: tuple[float, float] = (0.0, 0.0)
    figures: dict[str, float] = field(default_factory=dict)

    def note(self, moment: str) -> None:
        """The window begins, or ends."""
        now = (time.perf_counter(), cpu_seconds(*self.pids))
        if moment == "begins":
            self._began = now
            return
        held = memory(*self.pids)
        busy = (now[1] - self._began[1]) / (now[0] - self._began[0])
        self.figures = {"cpu": busy, "pss_mb": held.pss, "rss_mb": held.rss}


def measure(running: Running, subject: Subject, *, scenario: Scenario, load: Load) -> tuple[Outcome, dict[str, float]]:
    """Put one load on a server."""
    requests = requests_of(running.dialect, subject.jpegs, images=scenario.images, reply=scenario.reply)
    usage = Usage(running.pids)
    return run(Target(running.port, requests), load, at=usage.note), usage.figures


def _key(party: str, subject: Subject, *, load: str, scenario: Scenario | None = None) -> Key:
    images, reply = (scenario.images, scenario.reply) if scenario else (1, "-")
    return Key(party, subject.size, images, reply, load)


def _row(key: Key, found: Outcome, *, usage: dict[str, float]) -> Row:
    row = partial(Row, key, requests_per_s=found.per_second, images_per_s=key.images * found.per_second)
    return row(
        p50_ms=found.p50_ms,
        p95_ms=found.p95_ms,
        p99_ms=found.p99_ms,
        max_ms=found.max_ms,
        generator_cpu=found.generator_cpu,
        late_p99_ms=found.late_p99_ms,
        errors=found.errors,
        **usage,
    )


def _told(row: Row) -> Row:
    figures = {"images/s": row.images_per_s, "p50 ms": row.p50_ms, "p99 ms": row.p99_ms}
    said = ", ".join(f"{value:.1f} {name}" for name, value in figures.items() if value is not None)
    logger.info("%s, %d px, %d images, %s, %s: %s", *row.key, said)
    return row
