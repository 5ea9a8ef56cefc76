"""Several processes as one: torchrun's environment, and collectives with the right gradient.

`torchrun --nproc-per-node N -m training.run ...` is the whole interface. Each process takes its contiguous
part of every batch, and N of them compute what one would: negatives are everybody's, BatchNorm's statistics are the
whole batch's (`training.model.global_norm`), gradients are averaged (`training.run.step`). Without a process group
everything here is about one process of rank 0, and costs nothing. A model has to fit on one device.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.errors import PeerError
from training.model.device import choose_device

_GLOO_LOST = ("by peer", "Broken pipe", "Socket closed")  # gloo has no error of its own for a lost process


@contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Join the processes that torchrun started, for the `with` block: NCCL on CUDA devices, gloo on the CPU.

    Does nothing for a single process. Raises ValueError if there is no such device, or not one for each process, and
    `PeerError` where a collective fails because another process is gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    own = own_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
        dist.init_process_group("nccl", device_id=own)
    else:
        dist.init_process_group("gloo")
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) or any(sign in str(error) for sign in _GLOO_LOST):
            raise PeerError(f"stopped, because another process is gone: {str(error).split('. ')[0]}") from error
        raise
    finally:
        dist.destroy_process_group()


def own_device(name: str = "auto") -> torch.device:
    """The device of this process: `choose_device`, or under torchrun the CUDA device of its local rank."""
    device = choose_device(name)
    if device.type != "cuda" or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if ":" in name:
        raise ValueError(f"device is {name!r}, one device for {os.environ['WORLD_SIZE']} processes; take cuda")
    return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def first_of_rank(count: int) -> int:
    """Where this process's `count` items begin among those of all processes, in the order of ranks."""
    return rank() * count


def gather(values: Tensor, *, dim: int) -> Tensor:
    """The tensors of all processes, all of one shape, joined along `dim` in the order of ranks.

    The gradient of a process's part is the sum over what every process did with it: without that sum, negatives
    from elsewhere would be constants.
    """
    if world_size() == 1:
        return values
    gathered: Tensor = _Gather.apply(values, dim)
    return gathered


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of the processes' tensors, with its gradient."""
    mean: Tensor = _Mean.apply(values)
    return mean


def shared(values: list[float], device: torch.device) -> list[list[float]]:
    """The numbers of every process, by rank; all wait until all have given theirs. `device` is the group's."""
    if world_size() == 1:
        return [values]
    own = torch.tensor(values, dtype=torch.float64, device=device)
    everyone = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(everyone, own)
    return [numbers.tolist() for numbers in everyone]


def on_first_rank(action: Callable[[], object], device: torch.device) -> None:
    """Do something on rank 0 while the others wait; if it raises, the others raise `PeerError`."""
    error: Exception | None = None
    if rank() == 0:
        try:
            action()
        except Exception as raised:  # goes on below, once the others know
            error = raised
    failed = [numbers[0] for numbers in shared([float(error is not None)], device)]
    stop_together(error, failed)


def stop_together(error: Exception | None, failed: Sequence[float]) -> None:
    """Raise this process's error, or `PeerError` if another one failed; `failed` is by rank, not 0 where it did."""
    if error is not None:
        raise error
    if any(failed):
        raise PeerError(f"stopped, because rank {[bool(each) for each in failed].index(True)} failed")


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.count = dim, values.shape[dim]
        values = values.contiguous()
        parts = [torch.empty_like(values) for _ in range(world_size())]
        dist.all_gather(parts, values)
        return torch.cat(parts, dim=dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.narrow(ctx.dim, first_of_rank(ctx.count), ctx.count), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total: Tensor = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total / world_size()
