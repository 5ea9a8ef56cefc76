"""The estimated cost of a retraining's stages, as values and as a table.

Left out: estimating (`retraining.estimate`), which needs torch and takes steps with it. It is done in a process
of its own, so that this one stays small: what it has in memory would count as its stages' memory.
"""

import logging
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retraining.child import end_with, make_way
from retraining.plan import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """A stage's estimate: seconds (None: unknown), bytes on disk, and where the time is known from."""

    stage: str
    what: str
    seconds: float | None
    disk: int
    basis: str


def estimate_apart(plan: Plan, folder: Path, past: Sequence[dict[str, Any]], *, polite: bool) -> list[Cost]:
    """`retraining.estimate.estimate`, in another process; nothing is known if that dies."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, _prepare, (os.getpid(), polite)) as apart:
            return apart.submit(_estimate, plan, folder, past).result()
    except BrokenProcessPool:
        logger.warning("time and disk can't be estimated: the process that tries some steps died (out of memory?)")
        return []


def lacking_room(costs: Sequence[Cost], folder: Path) -> str | None:
    """In words, if the disk has no room for the whole."""
    there = folder
    while not there.exists():
        there = there.parent
    free, needed = shutil.disk_usage(there).free, sum(cost.disk for cost in costs)
    if free >= needed:
        return None
    return f"this takes {needed >> 20} MiB of disk, and {there} has {free >> 20} MiB free: make room first"


def table(costs: Sequence[Cost]) -> str:
    """As text for a terminal."""
    lines = [f"{'stage':<10}{'time':>9}{'disk':>11}  {'known from':<24}what"]
    lines += [
        f"{cost.stage:<10}{duration(cost.seconds):>9}{cost.disk / 1e6:>8.0f} MB  {cost.basis:<24}{cost.what}"
        for cost in costs
    ]
    known = [cost.seconds for cost in costs]
    whole = sum(seconds for seconds in known if seconds is not None) if None not in known else None
    return "\n".join([*lines, f"{'in all':<10}{duration(whole):>9}{sum(cost.disk for cost in costs) / 1e6:>8.0f} MB"])


def duration(seconds: float | None) -> str:
    """A time as people say it."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _prepare(parent: int, polite: bool) -> None:
    end_with(parent)
    if polite:
        make_way()


def _estimate(plan: Plan, folder: Path, past: Sequence[dict[str, Any]]) -> list[Cost]:
    from retraining.estimate import estimate

    return estimate(plan, folder, past)
