"""Which images make up step `step`, and their pixels on the device.

All randomness is counted, not kept: the order of an epoch follows from (seed, epoch), the views of a step
from (seed, step). A resumed run needs no generator state to be exact. Left out: anything but sampling without
replacement; the last, incomplete batch of an epoch is dropped.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ORDER, _VIEWS = 0, 1  # distinct streams of one seed
_DEVICE_SHARE = 0.4  # of the free memory, that the images may take on a device


class Batches:
    """The training batches of a run, by step.

    `images` is uint8 (M, S, S, 3), usually memory-mapped, of which `rows` (N,) are trained on. On a GPU they
    are kept as uint8 where they fit into 40% of the free memory; else, and on the CPU, each batch is read
    from the map.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        rows: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if not 2 <= batch_size <= len(rows):
            raise ValueError(f"batch_size is {batch_size}; accepted: 2 to the {len(rows)} training images")
        self.batch_size, self.seed, self.device = batch_size, seed, device
        self.steps_per_epoch = len(rows) // batch_size
        self._images, self._rows = images, rows
        self._on_device = self._place()
        self._epoch, self._order = -1, rows[:0]

    def __call__(self, step: int) -> Tensor:
        """The images of a step: uint8 (batch_size, S, S, 3) on the device."""
        chosen = self.positions(step)
        if self._on_device is not None:
            return self._on_device[torch.from_numpy(chosen).to(self.device)]
        return torch.from_numpy(self._images[self._rows[chosen]]).to(self.device)

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions in `rows` of the images of a step, int64 (batch_size,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self._rows))
            self._epoch = epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def _place(self) -> Tensor | None:
        if self.device.type != "cuda":
            return None
        free, _ = torch.cuda.mem_get_info(self.device)
        if self._images[:1].nbytes * len(self._rows) > _DEVICE_SHARE * free:
            return None
        return torch.from_numpy(self._images[self._rows]).to(self.device)


def views_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step's views, on the CPU."""
    state = np.random.SeedSequence([seed, _VIEWS, step]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))  # manual_seed takes 63 bits
