"""Where the processes of a command work: each has its share of the cores, and one GPU where there are any."""

from dataclasses import dataclass

from core.machine.machine import cuda_devices, usable_cores
from serving.jobs.parallel.tasks import Task


@dataclass(frozen=True)
class Seat:
    """`threads` of the runtime and, beside them, of decoding; which GPU, if any."""

    threads: int
    gpu: int = 0


def seats(
    task: Task, *, processes: int | None, most: int, cores: int | None = None, gpus: int | None = None
) -> list[Seat]:
    """A seat for each process: one process a GPU, or else a core, unless `processes` is given; never more than `most`.

    Tasks on the same machine share its `cores` and `gpus` (default: all that it has).
    """
    cores = usable_cores() if cores is None else cores
    gpus = cuda_devices() if gpus is None else gpus
    count = min(processes or max(1, (gpus or cores) // task.local_count), most)
    threads = max(1, cores // task.local_count // max(1, count))
    first = task.local_index * count
    return [Seat(threads, (first + number) % gpus if gpus else 0) for number in range(count)]
