"""Training with lightly's parts, put together as its documentation does: transform, loader, head, loss, optimiser.

The encoder is a torchvision ResNet wrapped as ours, so that both sides are evaluated by the same code. Precision
is the caller's choice; the head runs in it too, the loss in float32. The learning rate has no schedule, as in
lightly's example, and a run does not resume.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import psutil
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.simclr_transform import SimCLRTransform
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from training.data.dataset import IMAGES, Dataset
from training.model.encoder import Encoder
from training.recipe.config import OptimiserConfig
from training.run.run import training_rows

COLOUR_STRENGTH, BLUR_P = 0.5, 0.0  # what lightly advises for small images (SimCLRTransform, examples for CIFAR-10)
HIDDEN, OUT, TEMPERATURE = 2048, 128, 0.5
OPTIMISERS = {  # its examples/pytorch/simclr.py; and its CIFAR-10 benchmark's, at a batch of 256
    "example": OptimiserConfig("sgd", lr=0.06, momentum=0.0, weight_decay=0.0, warmup_epochs=0),
    "benchmark": OptimiserConfig("sgd", lr=0.12, momentum=0.9, weight_decay=5e-4, warmup_epochs=0),
}

Done = Callable[[int, float], bool]


@dataclass(frozen=True)
class Loading:
    """How the views are made and batched. `image_size` is in pixels."""

    image_size: int
    batch_size: int
    workers: int


@dataclass
class Peer:
    """What is trained, on its device. `precision` is "fp32" or "bf16"; `channels_last` is the inputs' format."""

    encoder: Encoder
    head: nn.Module
    optimiser: torch.optim.Optimizer
    precision: str
    channels_last: bool = False


@dataclass(frozen=True)
class PeerRun:
    """What training took: steps and images done, seconds, seconds after each step, and where the time went.

    `views_share` is the workers' share of all processor time on a CPU; on a GPU, or without workers, the share of
    the wall time in which the training process waited for views.
    """

    steps: int
    images: int
    seconds: float
    ends: list[float]
    views_share: float


class TwoViews(TorchDataset[list[Tensor]]):
    """Two views, float32 (3, S, S), of each of some rows of a data folder; opened anew in each worker."""

    def __init__(self, data: Dataset, rows: NDArray[np.int64], image_size: int) -> None:
        self._path, self._rows = data.folder / IMAGES, rows
        self._transform = SimCLRTransform(image_size, cj_strength=COLOUR_STRENGTH, gaussian_blur=BLUR_P)
        self._images: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> list[Tensor]:
        if self._images is None:  # here, for a pickled memory map is a copy of all images
            self._images = np.load(self._path, mmap_mode="r")
        views = self._transform(Image.fromarray(self._images[self._rows[number]]))
        return cast(list[Tensor], views)


def build_peer(encoder: Encoder, *, optimiser: OptimiserConfig, precision: str, channels_last: bool = False) -> Peer:
    """The encoder with lightly's head on the encoder's device, and SGD over both."""
    head = SimCLRProjectionHead(encoder.embedding_dim, HIDDEN, OUT).to(next(encoder.parameters()).device)
    parameters = [*encoder.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(parameters, lr=optimiser.lr, momentum=optimiser.momentum, weight_decay=optimiser.weight_decay)
    return Peer(encoder, head, sgd, precision, channels_last)


def check_batch(data: Dataset, batch_size: int) -> None:
    """ValueError unless the training images are enough for a batch."""
    count = len(training_rows(data))
    if not 2 <= batch_size <= count:
        raise ValueError(f"peer-batch is {batch_size}; accepted: 2 to the {count} training images")


def train_peer(peer: Peer, data: Dataset, loading: Loading, *, done: Done) -> PeerRun:
    """Train until `done(steps, seconds)`; the clock starts when the workers have their first batch ready."""
    criterion = NTXentLoss(TEMPERATURE)
    device = next(peer.encoder.parameters()).device
    peer.encoder.train()
    peer.head.train()
    batches = _endless(_loader(data, loading, device))
    pair = next(batches)
    start, waiting, ends = time.perf_counter(), 0.0, list[float]()
    before = _processor_seconds()
    with tqdm(desc="pretraining, lightly's parts", unit=" steps") as bar:
        while not done(len(ends), time.perf_counter() - start):
            _step(peer, criterion, [views.to(device, non_blocking=True) for views in pair])
            asked = time.perf_counter()
            pair = next(batches)
            ends.append(time.perf_counter() - start)
            waiting += start + ends[-1] - asked
            bar.update()
    own, workers = (now - then for now, then in zip(_processor_seconds(), before, strict=True))
    seconds = time.perf_counter() - start
    by_workers = loading.workers > 0 and device.type == "cpu"
    views_share = workers / max(own + workers, 1e-9) if by_workers else waiting / seconds
    return PeerRun(len(ends), len(ends) * loading.batch_size, seconds, ends, views_share)


def _step(peer: Peer, criterion: nn.Module, pair: list[Tensor]) -> None:
    memory_format = torch.channels_last if peer.channels_last else torch.contiguous_format
    projections = []
    for views in pair:
        with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=peer.precision == "bf16"):
            projections.append(peer.head(peer.encoder(views.contiguous(memory_format=memory_format))))
    loss = criterion(projections[0].float(), projections[1].float())
    loss.backward()
    float(loss.detach())  # a finished step, on a GPU too
    peer.optimiser.step()
    peer.optimiser.zero_grad()


def _loader(data: Dataset, loading: Loading, device: torch.device) -> DataLoader[list[Tensor]]:
    check_batch(data, loading.batch_size)  # of too few images the loader would make no batch, for ever
    return DataLoader(
        TwoViews(data, training_rows(data), loading.image_size),
        batch_size=loading.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=loading.workers,
        persistent_workers=loading.workers > 0,
        multiprocessing_context="spawn" if loading.workers else None,
        pin_memory=device.type == "cuda",
    )


def _endless(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    for _ in itertools.count():
        yield from loader


def _processor_seconds() -> tuple[float, float]:
    """Processor seconds of this process, and of its living children (the workers)."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    seconds = [each.user + each.system for each in times]
    return seconds[0], sum(seconds[1:])
