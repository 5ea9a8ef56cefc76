"""Which images make up step `step`, and their pixels on the device.

All randomness is counted, not kept: the order of an epoch follows from (seed, epoch), the views of a step
from (seed, step). A resumed run needs no generator state to be exact. Sampling is without replacement, and the
last, incomplete batch of an epoch is dropped.
"""

import signal
from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from core.machine.held_signals import signals_held
from core.machine.interrupts import Waiting
from training.data.row_reader import RowReader
from training.model.device import sent
from training.run.workers_room import check_workers_room

_ORDER = 0  # of the streams of one seed; `training.model.views` has another
_PLACED_AT_ONCE = 4096  # images
_AHEAD = 2  # batches that each worker reads before they are asked for
_DEVICE_SHARE = 0.4  # of the free memory, that the images may take on a device


@dataclass
class Order(TorchDataset[Tensor]):
    """The order of the images, and those of a step by its number: uint8 (n, S, S, 3) on the CPU.

    Of `reader`'s images `rows` (N,) are trained on, `batch_size` a step. `part` is this process's slice of a batch.
    """

    reader: RowReader
    rows: NDArray[np.int64]
    batch_size: int
    seed: int
    part: slice
    _epoch: int = field(default=-1, init=False)
    _order: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), init=False)

    def __getitem__(self, step: int) -> Tensor:
        return torch.from_numpy(self.reader(self.rows[self.positions(step)[self.part]]))

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return len(self.rows) // self.batch_size

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions in `rows` of the images of a step, int64 (batch_size,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.rows))
            self._epoch = epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


class Batches:
    """The training batches of a run, by step.

    `images` is uint8 (M, S, S, 3), usually memory-mapped, of which `rows` (N,) are trained on; `part` is this
    process's slice of a batch. On a GPU they are kept as uint8 where they fit into 40% of the free memory; else,
    and on the CPU, each batch is read from the file.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
        part: slice = slice(None),
    ) -> None:
        if not 2 <= batch_size <= len(rows):
            raise ValueError(f"batch_size is {batch_size}; accepted: 2 to the {len(rows)} training images")
        reader = RowReader(images)
        self._order = Order(reader, rows, batch_size, seed, part)
        self._device = device
        self._on_device = _placed(reader, rows, device)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self._order.steps_per_epoch

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions in `rows` of the images of a step, of all processes: int64 (batch_size,)."""
        return self._order.positions(step)

    def __call__(self, step: int) -> Tensor:
        """The images of a step: uint8 (n, S, S, 3) on the device. Raises OSError if they can't be read."""
        if self._on_device is not None:
            chosen = self.positions(step)[self._order.part]
            return self._on_device[sent(torch.from_numpy(chosen), self._device)]
        return sent(self._order[step], self._device)

    def between(self, first: int, last: int, *, workers: int = 0) -> Generator[Tensor]:
        """The images of the steps from `first` up to, not including, `last`.

        Images that do not lie on the device are read ahead by `workers` processes, into pinned memory if the
        device is CUDA's; without workers, when asked for. Raises OSError if they can't be read. Close it to stop the
        workers early.
        """
        if self._on_device is not None or workers == 0:
            yield from map(self, range(first, last))
            return
        check_workers_room(workers * _AHEAD, self._order[first].nbytes)
        loader = DataLoader(
            self._order,
            batch_size=None,  # the order makes the batches
            sampler=range(first, last),
            num_workers=workers,
            prefetch_factor=_AHEAD,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_leave_signals_to_parent,
            multiprocessing_context="spawn",  # a fork of a process with threads may hang
        )
        # Ctrl-C reaches a whole group of processes. The training loop finishes its step and saves, and needs data for
        # that, also while its workers are starting up.
        with signals_held():
            ahead = iter(loader)
        try:
            for images in ahead:
                yield images.to(self._device, non_blocking=True)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise OSError(f"a process that reads images died: {str(error).splitlines()[0]}") from error
        except OSError as error:  # a worker's, with its whole traceback for a message
            raise OSError(str(error).rstrip().split("OSError: ")[-1]) from error
        except Waiting:
            for worker in ahead._workers:  # type: ignore[attr-defined]
                worker.kill()  # it hangs, and would be waited for
            raise
        finally:
            # At the interpreter's end it is too late: that would send the SIGTERM that workers ignore, and wait.
            ahead._shutdown_workers()  # type: ignore[attr-defined]
            for worker in ahead._workers:  # type: ignore[attr-defined]
                worker.kill()  # one that hangs would be waited for at the interpreter's end


def _placed(reader: RowReader, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
    """The images on the device, where they fit."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if reader(rows[:1]).nbytes * len(rows) > _DEVICE_SHARE * free:
        return None
    placed = torch.empty((len(rows), *reader(rows[:1]).shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(rows), _PLACED_AT_ONCE):  # never all of them in the host's memory
        some = slice(start, start + _PLACED_AT_ONCE)
        placed[some] = torch.from_numpy(reader(rows[some])).to(device)
    return placed


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore them for good: what is blocked only waits, and DataLoader sets a handler of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
