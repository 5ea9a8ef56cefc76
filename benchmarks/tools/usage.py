"""What a process and its descendants take: CPU seconds, and memory counted once where it is shared.

PSS divides each page among the processes that map it, so the sum over a tree counts every page once; RSS, summed,
counts shared pages as often as they are mapped. GPUs are not looked at.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

_MIB = 1 << 20


@dataclass(frozen=True)
class Memory:
    """MiB of a tree of processes; `pss_by_process` has each one's, by id and name."""

    pss: float
    rss: float
    pss_by_process: dict[str, float]


def cpu_seconds(*roots: int) -> float:
    """User and system time that the trees' living processes have taken since they began."""
    total = 0.0
    for process in _trees(roots):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def memory(*roots: int) -> Memory:
    """What the trees hold now."""
    pss, rss = {}, 0.0
    for process in _trees(roots):
        try:
            held = process.memory_full_info()
            pss[f"{process.pid} {process.name()}"] = held.pss / _MIB
        except psutil.NoSuchProcess:
            continue
        rss += held.rss / _MIB
    return Memory(sum(pss.values()), rss, pss)


def _trees(roots: Sequence[int]) -> Iterator[psutil.Process]:
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(root)
            yield parent
            yield from parent.children(recursive=True)


def busy_share(seconds: float) -> float:
    """The share of this machine's cores that is busy now, measured for `seconds`."""
    return float(psutil.cpu_percent(seconds)) / 100
