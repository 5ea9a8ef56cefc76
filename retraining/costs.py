"""The estimated cost of a retraining's stages, as values and as a table."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """A stage's estimate: seconds (None: unknown), bytes on disk, and where the time is known from."""

    stage: str
    what: str
    seconds: float | None
    disk: int
    basis: str


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
