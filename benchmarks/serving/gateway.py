"""What the gateway costs: requests through it beside the same work in-process, in one run, everything in turn.

    python -m benchmarks.serving.gateway --images cifar10-images.zip [--quick]

ResNet-50 of random weights (speed is measured, not quality) at 32 px with the stem `small_stride2`, at 32 px with the
3x3 stem of stride 1, and at 224 px. Load by wrk, whose own CPU is told; arrivals at half of the capacity by the
generator of this folder. CPU is the sum over every process of the server. In turn: the in-process ceiling, our server,
LitServe with the same file; then a search by vector in 50,000. Prints a table and a last line of JSON with medians.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.search.http import ARCHITECTURES
from benchmarks.serving import ceiling, servers, wrk
from benchmarks.serving.load import Open, Target, run
from benchmarks.serving.requests_of import LITSERVE, OURS, requests_of
from benchmarks.serving.servers import Running
from benchmarks.serving.vector_search import searches
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.jpegs import enlarge, read_jpegs
from benchmarks.tools.random_release import write_random_release
from benchmarks.tools.usage import cpu_seconds
from core.command_line.command import main
from core.images.decode import decode
from core.machine.machine import default_workers
from core.releases.manifest import FORMATS, Release
from export.publishing.archive import build_archive
from serving.inference.choice import choose
from training.recipe.config import Stem

_JPEGS = 128
_CLIENTS = 64
_SEVERAL = 16
_SETTING = ceiling.Setting(batch=16, threads=1, processes=default_workers())


@dataclass(frozen=True)
class Case:
    """An encoder at an image size, with the images that it is asked about."""

    name: str
    size: int
    release: Release
    archive: Path
    file: Path
    form: str
    jpegs: Sequence[bytes]


def cases(images: Path, work: Path, *, quick: bool) -> Iterator[Case]:
    """The encoders, made in `work`."""
    small = read_jpegs(images, _JPEGS)
    wanted: list[tuple[str, int, Stem, list[bytes]]] = [("32", 32, "small_stride2", small)]
    if not quick:
        wanted += [("32_stride1", 32, "small", small), ("224", 224, "imagenet", enlarge(small[:32]))]
    for name, size, stem, jpegs in wanted:
        pixels = np.stack([decode(data, size) for data in jpegs[:16]])
        release = write_random_release(work / name, pixels, architecture=ARCHITECTURES[2048], stem=stem)
        (work / f"{name}-archive").mkdir()
        form = choose(release).form
        archive = build_archive(release, work / f"{name}-archive")
        yield Case(name, size, release, archive, release.file(FORMATS[form]), form, jpegs)


class Figure(dict[str, list[float]]):
    """Every figure of every round, by name."""

    def add(self, name: str, value: float) -> None:
        """Note a figure of this round."""
        self.setdefault(name, []).append(value)

    def medians(self) -> dict[str, float]:
        """The median of each."""
        return {name: median(values) for name, values in self.items()}


def measure_case(case: Case, seen: Figure, *, seconds: float, quick: bool) -> None:
    """One round of one encoder."""
    work = ceiling.Work(case.file, case.size, case.jpegs)
    rate, cpu = ceiling.rate_and_cpu(work, _SETTING, seconds=seconds)
    seen.add(f"{case.name} ceiling images/s", rate)
    seen.add(f"{case.name} ceiling ms of a core", 1000 * cpu)
    seen.add(f"{case.name} alone ms", ceiling.single_image_ms(work, seconds=seconds))
    with servers.serving(case.archive, workers=default_workers(), form=case.form) as running:
        _ours(case, running, seen, seconds=seconds)
    if not quick and case.name == "32":
        with servers.litserve_of(case.file, case.size, workers=default_workers()) as running:
            found = wrk.load(running.port, _requests(case, LITSERVE), clients=_CLIENTS, seconds=seconds)
            seen.add(f"{case.name} litserve images/s", found.per_second)


def _ours(case: Case, running: Running, seen: Figure, *, seconds: float) -> None:
    wrk.load(running.port, _requests(case, OURS), clients=_CLIENTS, seconds=3)
    for reply in ("json", "binary"):
        requests = requests_of(OURS, case.jpegs, images=1, reply=reply)
        _closed(running, requests, seen, f"{case.name} {reply}", seconds=seconds)
    several = requests_of(OURS, case.jpegs, images=_SEVERAL, reply="json")
    _closed(running, several, seen, f"{case.name} x{_SEVERAL} json", seconds=seconds, clients=_SEVERAL)
    one = wrk.load(running.port, _requests(case, OURS), clients=1, seconds=seconds)
    seen.add(f"{case.name} one client p50 ms", one.p50_ms)
    half = 0.5 * seen[f"{case.name} json requests/s"][-1]
    paced = run(Target(running.port, _requests(case, OURS)), Open(half, seconds=seconds, warm_up=1.0))
    if paced.p50_ms and paced.p99_ms:
        seen.add(f"{case.name} half load p99/p50", paced.p99_ms / paced.p50_ms)


def _closed(
    running: Running, requests: Sequence[bytes], seen: Figure, name: str, *, seconds: float, clients: int = _CLIENTS
) -> None:
    marks: list[float] = []
    note: Callable[[str], None] = lambda moment: marks.append(cpu_seconds(*running.pids))  # noqa: E731
    found = wrk.load(running.port, requests, clients=clients, seconds=seconds, at=note)
    seen.add(f"{name} requests/s", found.per_second)
    seen.add(f"{name} ms of a core", 1000 * (marks[1] - marks[0]) / max(found.requests, 1))
    seen.add(f"{name} wrk ms of a core", 1000 * found.generator_cpu_seconds / max(found.requests, 1))
    seen.add(f"{name} refused", found.refused + found.broken)


def _requests(case: Case, dialect: Any) -> list[bytes]:
    return requests_of(dialect, case.jpegs, images=1, reply="json")


def _ratio(found: dict[str, float], above: str, below: str, factor: float = 1.0) -> float | None:
    if above not in found or not found.get(below):
        return None
    return round(factor * found[above] / found[below], 3)


def summary(found: dict[str, float]) -> Figures:
    """What the issue asks for, of the medians."""

    def extra(reply: str) -> float | None:
        served, alone = found.get(f"32 {reply} ms of a core"), found.get("32 ceiling ms of a core")
        return None if served is None or alone is None else round(served - alone, 3)

    p50 = found["32 one client p50 ms"] - found["32 alone ms"]
    return {
        "core_ms_per_request": {reply: extra(reply) for reply in ("json", "binary")},
        "ratios": {
            "single_32_vs_ceiling": _ratio(found, "32 json requests/s", "32 ceiling images/s"),
            "single_32_stride1_vs_ceiling": _ratio(found, "32_stride1 json requests/s", "32_stride1 ceiling images/s"),
            "single_224_vs_ceiling": _ratio(found, "224 json requests/s", "224 ceiling images/s"),
            "multi16_32_vs_ceiling": _ratio(
                found, f"32 x{_SEVERAL} json requests/s", "32 ceiling images/s", factor=_SEVERAL
            ),
            "vs_litserve": _ratio(found, "32 json requests/s", "32 litserve images/s"),
            "p99_over_p50_at_half_load": round(found.get("32 half load p99/p50", float("nan")), 3),
        },
        "p50_extra_ms_one_client": round(p50, 3),
        "search_p50_ms": found.get("search p50 ms"),
        "search_qps": found.get("search requests/s"),
    }


def _measure(options: argparse.Namespace) -> Figures:
    if not wrk.available():
        raise RuntimeError("wrk is not installed; on Debian: apt install wrk")
    seen = Figure()
    rounds, seconds = (1, 3.0) if options.quick else (options.rounds, options.seconds)
    with tempfile.TemporaryDirectory() as work:
        subjects = [*cases(options.images, Path(work), quick=options.quick)]
        for _ in tqdm(range(rounds), desc="rounds"):
            for case in subjects:
                measure_case(case, seen, seconds=seconds, quick=options.quick)
        if options.vectors:
            searches(Path(work), seen.add, count=options.vectors, rounds=rounds, seconds=seconds)
    found = seen.medians()
    print("\n".join(f"{name:<44}{value:>12,.3f}" for name, value in found.items()))
    return {**summary(found), "medians": {name: round(value, 4) for name, value in found.items()}, "rounds": rounds}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, help="a folder or a zip with real JPEG files")
    add("--rounds", type=int, default=3, help="how often each has its turn (default: %(default)s)")
    add("--seconds", type=float, default=8.0, help="of each load (default: %(default)s)")
    add("--vectors", type=int, default=50_000, help="searched in; 0 leaves the search out (default: %(default)s)")
    add("--quick", action="store_true", help="one round of 3 s at 32 px, without LitServe")


COMMAND = benchmark("benchmarks.serving.gateway", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
