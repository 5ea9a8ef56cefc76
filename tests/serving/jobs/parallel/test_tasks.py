"""Which shards are whose: every shard is one task's, whoever counts the tasks."""

import pytest

from serving.jobs.parallel.tasks import Task, WorkError, task_of

SLURM = {
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_STEP": "2",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}


def test_one_task_does_everything() -> None:
    assert task_of(None, None, {}) == Task(0, 1)


def test_what_is_given_counts() -> None:
    assert task_of(2, 3, SLURM | TORCHRUN) == Task(2, 3)


def test_an_array_may_begin_anywhere_and_go_in_steps() -> None:
    assert task_of(None, None, SLURM) == Task(3, 4)
    assert task_of(None, None, {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}) == Task(2, 4)


def test_ranks_of_torchrun_share_a_machine() -> None:
    assert task_of(None, None, TORCHRUN) == Task(5, 6, local_index=1, local_count=2)


def test_every_rank_of_every_job_of_an_array_is_a_task() -> None:
    tasks = [
        task_of(None, None, SLURM | TORCHRUN | {"SLURM_ARRAY_TASK_ID": str(job), "RANK": str(rank)})
        for job in (1, 3, 5, 7)
        for rank in range(6)
    ]
    assert [(task.index, task.count) for task in tasks] == [(number, 24) for number in range(24)]


@pytest.mark.parametrize(
    ("index", "count", "environment", "message"),
    [
        (2, 2, {}, "index is 2 and the tasks' count 2"),
        (1, None, {}, "index is 1 and the tasks' count 1; .*both --task-index and --task-count"),
        (0, 0, {}, "count 0"),
        (None, None, {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'"),
        (None, None, SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, "index is 4 and the tasks' count 4"),
    ],
)
def test_an_impossible_task_is_told(
    index: int | None, count: int | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(WorkError, match=message):
        task_of(index, count, environment)
