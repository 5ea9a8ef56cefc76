"""One training step (SimCLR, Algorithm 1): views, embeddings h, projections z, loss, gradients.

A batch too large for the device goes through the network in chunks, with the gradient of the whole (GradCache, Gao
et al. 2021, arXiv 2101.06983): z of every chunk without a graph; the loss of the whole batch and dL/dz; then each
chunk again, with its graph, from which dL/dz goes on into the weights. The images pass the encoder twice, and the
views are made twice from the same draws. BatchNorm in training mode then has the statistics of a chunk, not of the
batch: the gradient is exact for that network, as it would be for one with as many devices as chunks and no
synchronisation, and only without BatchNorm, or with it frozen, is it the unchunked one.

`training.run.pretrain` then steps with the gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.data.dataset import Dataset
from training.model.distributed import rank, world_size
from training.model.encoder import Encoder
from training.model.nt_xent import nt_xent
from training.model.pixels import Normalisation, normalise
from training.model.views import Draws, apply_all, draw_all, views_generator
from training.recipe.config import PretrainConfig
from training.run.batches import Batches
from training.run.checkpoint import TrainingState
from training.run.run import training_rows


class Network(nn.Module):
    """Encoder and head as one: normalised views (B, 3, S, S) to projections (B, d)."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, views: Tensor) -> Tensor:
        """Project; the type of the result is autocast's."""
        z: Tensor = self.head(self.encoder(views))
        return z


@dataclass(frozen=True)
class Inputs:
    """What a step starts from, of this process: n images, uint8 (n, S, S, 3), and the draws of their views.

    `size` is the side of the views in pixels.
    """

    images: Tensor
    draws: list[Draws]
    size: int

    def views(self, part: slice, normalisation: Normalisation) -> Tensor:
        """The normalised views of some of the images: float32 (V * n, 3, size, size), channels_last, view by view."""
        draws = [draws.rows(part) for draws in self.draws]
        views = apply_all(self.images[part], draws, size=self.size).flatten(0, 1)
        return normalise(views, normalisation).contiguous(memory_format=torch.channels_last)


def build_network(state: TrainingState, *, compiled: bool = False) -> nn.Module:
    """The state's encoder and head, sharing their parameters: compiled if so, and over all processes.

    Compiled code is for one shape, so a run compiles once for each size of its views.
    """
    network: nn.Module = Network(state.encoder, state.head)
    if compiled:
        network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    if world_size() == 1:
        return network
    # GlobalBatchNorm's buffers are equal on all processes already
    return DistributedDataParallel(network, broadcast_buffers=False)


def own_part(batch_size: int) -> slice:
    """This process's slice of a batch. Raises ValueError if the processes can't share it evenly."""
    if batch_size % world_size():
        raise ValueError(f"batch_size is {batch_size}; it must be a multiple of the {world_size()} processes")
    count = batch_size // world_size()
    return slice(rank() * count, (rank() + 1) * count)


def own_batches(state: TrainingState, dataset: Dataset) -> Batches:
    """The run's batches, of which this process gets its part."""
    config = state.config
    return Batches(
        dataset.images,
        training_rows(dataset),
        batch_size=config.batch_size,
        seed=config.seed,
        device=next(state.encoder.parameters()).device,
        part=own_part(config.batch_size),
    )


def prepare(config: PretrainConfig, images: Tensor, step: int, *, total: int) -> Inputs:
    """The inputs of step `step` of `total` from this process's images, uint8 (n, S, S, 3).

    The draws are made for the whole batch, on every process, so that they do not depend on how many there are.
    """
    height, width = images.shape[1:3]
    generator = views_generator(config.seed, step)
    draws = draw_all(config.batch_size, config.views, height=height, width=width, generator=generator)
    part = own_part(config.batch_size)
    return Inputs(images, [one.rows(part) for one in draws], config.view_size(step, total=total))


def train_step(state: TrainingState, network: nn.Module, inputs: Inputs) -> Tensor:
    """Leave the gradients of one batch in the parameters; nothing steps, and the device is not waited for.

    Returns the loss of this process, a scalar without gradient; gradients are the mean over processes.
    """
    state.optimiser.zero_grad(set_to_none=True)
    count = len(inputs.images)
    size = min(state.config.chunk_size or count, count)
    size = -(-count // -(-count // size))  # as even as may be: BatchNorm over one image would know two rows only
    chunks = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if len(chunks) > 1:
        return _chunked(state, network, inputs, chunks)
    loss = _loss(state.config, _project(state, network, inputs, chunks[0]))
    loss.backward()
    return loss.detach()


def _chunked(state: TrainingState, network: nn.Module, inputs: Inputs, chunks: list[slice]) -> Tensor:
    with torch.no_grad(), _statistics_kept(network):
        z = torch.cat([_project(state, network, inputs, chunk) for chunk in chunks], dim=1)
    z.requires_grad_()
    loss = _loss(state.config, z)
    (gradient,) = torch.autograd.grad(loss, z)
    for chunk in chunks:
        apart = isinstance(network, DistributedDataParallel) and chunk is not chunks[-1]
        with network.no_sync() if apart else nullcontext():  # type: ignore[operator]
            _project(state, network, inputs, chunk).backward(gradient[:, chunk])
    return loss.detach()


def _project(state: TrainingState, network: nn.Module, inputs: Inputs, part: slice) -> Tensor:
    """The projections (V, n, d) of some of the images."""
    views = inputs.views(part, state.normalisation)
    with torch.autocast(views.device.type, dtype=torch.bfloat16, enabled=state.config.precision == "bf16"):
        z: Tensor = network(views)
    shaped: Tensor = z.unflatten(0, (len(inputs.draws), -1))
    return shaped


def _loss(config: PretrainConfig, z: Tensor) -> Tensor:
    return nt_xent(z, config.temperature, decoupled=config.loss == "dcl")


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Undo what the `with` block does to buffers: GradCache's second pass is the one that counts."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)
