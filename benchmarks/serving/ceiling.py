"""The most that this machine gives without any server: decoding and the runtime, in this project's own code.

Threads decode the next batches while the runtime works on the present one, in as many processes as is best: batch,
threads and processes are measured, not assumed. Each process is `benchmarks.serving.ceiling_worker`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.load import percentile
from benchmarks.tools.child import Child
from core.machine.machine import usable_cores

BATCHES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Work:
    """What is embedded, by which file: JPEG files, at `size` pixels."""

    file: Path
    size: int
    jpegs: Sequence[bytes]


@dataclass(frozen=True)
class Setting:
    """Images of a batch; threads of each process, for the runtime and beside it for decoding; processes."""

    batch: int
    threads: int
    processes: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.processes} x {self.threads} threads"


def images_per_second(work: Work, setting: Setting, *, seconds: float) -> float:
    """Images a second of all processes together, which begin at the same time once each is warm."""
    return rate_and_cpu(work, setting, seconds=seconds)[0]


def rate_and_cpu(work: Work, setting: Setting, *, seconds: float) -> tuple[float, float]:
    """Images a second of all processes together, and the CPU seconds that one image takes of them."""
    order = asdict(setting) | {"overlapped": True, "seconds": seconds}
    found = _run(work, order, processes=setting.processes)
    rate = sum(one["images"] / one["seconds"] for one in found)
    return rate, sum(one["cpu_seconds"] for one in found) / sum(one["images"] for one in found)


def single_image_ms(work: Work, *, seconds: float) -> float:
    """The median time of one image, decoded and embedded alone with every core: what a lone request can't beat."""
    setting = Setting(batch=1, threads=usable_cores(), processes=1)
    (found,) = _run(work, asdict(setting) | {"overlapped": False, "seconds": seconds}, processes=1)
    median = percentile(sorted(found["latencies_ms"]), 50)
    assert median is not None
    return median


def best_setting(work: Work, *, seconds: float, batches: Sequence[int] = BATCHES) -> tuple[Setting, dict[str, float]]:
    """The fastest setting, and the images a second of every one that was tried."""
    rates = {
        setting: images_per_second(work, setting, seconds=seconds) for setting in settings(usable_cores(), batches)
    }
    best = max(rates, key=lambda setting: rates[setting])
    return best, {str(setting): round(rate, 2) for setting, rate in rates.items()}


def settings(cores: int, batches: Sequence[int]) -> Iterator[Setting]:
    """The cores shared out to 1, 2, 4, ... processes, with every batch."""
    processes = 1
    while processes <= cores:
        for batch in batches:
            yield Setting(batch, cores // processes, processes)
        processes *= 2


def _run(work: Work, order: dict[str, Any], *, processes: int) -> list[dict[str, Any]]:
    full = order | {"file": str(work.file.resolve()), "size": work.size}
    with ExitStack() as stack:
        children = [stack.enter_context(Child("benchmarks.serving.ceiling_worker")) for _ in range(processes)]
        for child in children:
            child.tell(full, work.jpegs)
        for child in children:
            child.hear()
        for child in children:
            child.tell({"word": "go"})
        return [child.hear() for child in children]
