"""Which process gets which cores and GPU."""

import pytest

from serving.jobs.parallel.seats import Seat, seats
from serving.jobs.parallel.tasks import Task

ALONE = Task()


@pytest.mark.parametrize(
    ("task", "processes", "most", "cores", "gpus", "expected"),
    [
        (ALONE, None, 99, 4, 0, [Seat(1)] * 4),
        (ALONE, 2, 99, 5, 0, [Seat(2)] * 2),
        (ALONE, None, 3, 8, 0, [Seat(2)] * 3),
        (ALONE, 9, 99, 4, 0, [Seat(1)] * 9),
        (ALONE, None, 0, 4, 0, []),
        (ALONE, None, 99, 16, 2, [Seat(8, 0), Seat(8, 1)]),
        (ALONE, 4, 99, 16, 2, [Seat(4, 0), Seat(4, 1), Seat(4, 0), Seat(4, 1)]),
        (Task(5, 6, local_index=1, local_count=2), None, 99, 16, 4, [Seat(4, 2), Seat(4, 3)]),
        (Task(5, 6, local_index=1, local_count=2), None, 99, 8, 0, [Seat(1)] * 4),
        (Task(7, 8, local_index=7, local_count=8), None, 99, 4, 0, [Seat(1)]),
    ],
)
def test_cores_and_gpus_are_shared_out(
    task: Task, processes: int | None, most: int, cores: int, gpus: int, expected: list[Seat]
) -> None:
    assert seats(task, processes=processes, most=most, cores=cores, gpus=gpus) == expected
