"""Which part of the work this command does: piece k is done by the task with index k % count.

Index and count are given, or found where SLURM (job arrays) or torchrun put them. In an array whose jobs call torchrun,
every rank of every job is a task. Any scheduler will do, as long as its tasks see the same folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass


class WorkError(RuntimeError):
    """The work can't begin or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Task:
    """Task `index` of `count`; `local_index` of `local_count` tasks that share this machine."""

    index: int = 0
    count: int = 1
    local_index: int = 0
    local_count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise WorkError(
                f"the task's index is {self.index} and the tasks' count {self.count}; the index must be from 0 to "
                "count - 1: give both --task-index and --task-count"
            )

    def pieces(self, count: int) -> range:
        """Which of `count` pieces of work this task does."""
        return range(self.index, count, self.count)


def task_of(index: int | None, count: int | None, environment: Mapping[str, str]) -> Task:
    """The task that is given, else the environment's, else the only one."""
    if index is not None or count is not None:
        return Task(index or 0, 1 if count is None else count)
    place, places = _array(environment)
    rank, ranks = _numbers(environment, "RANK", "WORLD_SIZE") or (0, 1)
    local = _numbers(environment, "LOCAL_RANK", "LOCAL_WORLD_SIZE") if ranks > 1 else None
    return Task(place * ranks + rank, places * ranks, *(local or (0, 1)))


def _array(environment: Mapping[str, str]) -> tuple[int, int]:
    """The place in a SLURM array and its length; an array may begin anywhere and go on in steps."""
    found = _numbers(environment, "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    if found is None:
        return 0, 1
    first = _number("SLURM_ARRAY_TASK_MIN", environment.get("SLURM_ARRAY_TASK_MIN", "0"))
    step = _number("SLURM_ARRAY_TASK_STEP", environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    return (found[0] - first) // max(1, step), found[1]


def _numbers(environment: Mapping[str, str], first: str, second: str) -> tuple[int, int] | None:
    """The numbers in two variables, if both are set."""
    if first not in environment or second not in environment:
        return None
    return _number(first, environment[first]), _number(second, environment[second])


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise WorkError(f"{name} is {text!r}; it must be a whole number: give --task-index and --task-count") from None
