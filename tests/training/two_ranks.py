"""What two real gloo ranks compute, beside one process on the whole batch; run once by test_distributed.py.

    python -m tests.training.two_ranks DATA OUT        (each in torchrun's environment)

Each rank computes alone, before it joins the other, what one process does; then both do it together, by the product's
own `open_run`, `build_network`, `prepare` and `train_step`. Each writes rankN.json: differences by case and tensor, and
how far one process in float32 is from itself in float64.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.data.dataset import Dataset
from training.errors import PeerError
from training.model.distributed import (
    gather,
    on_first_rank,
    process_group,
    rank,
    shared,
    stop_together,
    world_size,
)
from training.model.global_norm import GlobalBatchNorm, with_global_statistics
from training.model.views import Draws
from training.recipe.config import PretrainConfig, override
from training.run.checkpoint import TrainingState
from training.run.pretrain import pretrain
from training.run.run import open_run
from training.run.step import Inputs, build_network, own_part, prepare, train_step

BATCH = 12
CPU = torch.device("cpu")
TINY: dict[str, object] = {
    "encoder.architecture": "resnet18",
    "encoder.stem": "small_stride2",
    "encoder.zero_init_residual": False,
    "head.hidden": 32,
    "head.out": 16,
    "batch_size": BATCH,
    "precision": "fp32",
}


@dataclass(frozen=True)
class Case:
    """One step: `chunk` is each rank's, of 6 images; `frozen` BatchNorm uses its running statistics."""

    loss: str = "nt_xent"
    views: int = 2
    double: bool = True
    chunk: int = 0
    frozen: bool = False


CASES = [Case(loss, views, double) for loss in ("nt_xent", "dcl") for views in (2, 3) for double in (True, False)]
CHUNKED = [Case(chunk=2), Case(chunk=3), Case(chunk=2, frozen=True), Case("dcl", 3, chunk=2, double=False)]


@dataclass(frozen=True)
class DoubleInputs(Inputs):
    """Inputs whose views are float64."""

    def views(self, *arguments: object) -> Tensor:
        return super().views(*arguments).double()  # type: ignore[arg-type]


def alone_in_order(inputs: Inputs, chunk: int) -> Inputs:
    """The whole batch, reordered so that chunks of 2 `chunk` images hold what two ranks' chunks hold together."""
    half = torch.arange(BATCH // 2)
    pairs = zip(half.split(chunk), (half + BATCH // 2).split(chunk), strict=True)
    order = torch.cat([torch.cat(pair) for pair in pairs])
    draws = [Draws(**{name: value[order] for name, value in vars(one).items()}) for one in inputs.draws]
    return Inputs(inputs.images[order], draws, inputs.size)


def outcome(case: Case, data: Dataset, out: Path) -> dict[str, Tensor]:
    """Loss, gradients and buffers after one step, by as many processes as there are."""
    alike = case.chunk * (2 if world_size() == 1 else 1)
    changes = {"loss": case.loss, "views.count": case.views, "chunk_size": alike}
    state = open_run(data, out, override(PretrainConfig(), TINY | changes), device=CPU)
    for part in (state.encoder, state.head):
        part.double() if case.double else part.float()
        part.train(not case.frozen)
    whole = torch.from_numpy(np.array(data.images[:BATCH]))
    inputs = prepare(state.config, whole[own_part(BATCH)], 3, total=10)
    if case.chunk and world_size() == 1:
        inputs = alone_in_order(inputs, case.chunk)
    if case.double:
        inputs = DoubleInputs(inputs.images, inputs.draws, inputs.size)
    losses = shared([float(train_step(state, build_network(state), inputs))], CPU)
    return {"loss": torch.tensor(losses, dtype=torch.float64).mean()} | tensors_of(state)


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    """Every gradient and every buffer."""
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in state.parameters().items()}
    assert all(gradient is not None for gradient in gradients.values())
    buffers = dict(state.encoder.named_buffers("encoder")) | dict(state.head.named_buffers("head"))
    return {name: value for name, value in (gradients | buffers).items() if value is not None}


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each tensor, as a share of its largest number."""
    assert found.keys() == expected.keys()
    return {
        name: float((found[name] - value).abs().max() / value.abs().max().clamp_min(1e-30))
        for name, value in expected.items()
    }


def gathering() -> dict[str, float]:
    """`gather` along each dimension, and its gradient, against autograd through the concatenation."""
    parts = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found: dict[str, float] = {}
    for dim in (0, 1, 2):
        leaves = [part.clone().requires_grad_() for part in parts]
        joined = torch.cat(leaves, dim=dim)
        weights = [
            torch.arange(joined.numel()).view_as(joined) % (7 + r) for r in range(2)
        ]  # each rank uses it its way
        torch.stack([(joined * weight).sin().sum() for weight in weights]).sum().backward()
        own = parts[rank()].clone().requires_grad_()
        together = gather(own, dim=dim)
        (together * weights[rank()]).sin().sum().backward()
        assert own.grad is not None
        pairs = {"value": (together, joined), "gradient": (own.grad, leaves[rank()].grad)}
        found |= {f"{name} {dim}": float((a - b).abs().max()) for name, (a, b) in pairs.items() if b is not None}
    return found


def norming() -> dict[str, float]:
    """`GlobalBatchNorm` over the ranks against BatchNorm on the whole batch: three steps, then eval mode."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        for affine in (True, False):
            for shape in ((10, 4), (10, 4, 3, 2)):
                found[f"{dtype} {affine} {len(shape)}"] = norm_difference(shape, affine=affine, dtype=dtype)
    return found


def norm_difference(shape: tuple[int, ...], *, affine: bool, dtype: torch.dtype) -> float:
    """The largest difference in output, gradients and running statistics."""
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    oracle = nn.Sequential(kind(shape[1], affine=affine, dtype=dtype))
    ours = nn.Sequential(kind(shape[1], affine=affine, dtype=dtype))
    with_global_statistics(ours, CPU)
    assert isinstance(ours[0], GlobalBatchNorm)
    own = slice(5 * rank(), 5 * rank() + 5)
    found: list[float] = []
    generator = torch.Generator().manual_seed(1)
    for training in (True, True, True, False):
        batch = (torch.randn(shape, generator=generator) * 3 + 2).to(dtype)
        x, y = (batch.clone().requires_grad_() for _ in range(2))
        expected, got = oracle.train(training)(x), ours.train(training)(y[own])
        for model, output in ((oracle, expected), (ours, got)):
            model.zero_grad()
            cotangent = torch.arange(batch.numel(), dtype=dtype).view_as(batch).sin()
            output.backward(cotangent if model is oracle else cotangent[own])
        for parameter in ours.parameters():
            assert parameter.grad is not None
            dist.all_reduce(parameter.grad)
        assert x.grad is not None
        assert y.grad is not None
        pairs = [(got, expected[own]), (y.grad[own], x.grad[own])]
        pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), oracle.parameters(), strict=True)]
        pairs += zip(ours.buffers(), oracle.buffers(), strict=True)
        found += [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    assert list(ours.state_dict()) == list(oracle.state_dict())
    return max(found)


def full() -> None:
    raise OSError("full")


def agreement(data: Dataset, out: Path) -> dict[str, str]:
    """What each rank hears when a batch can't be shared, when rank 0 fails, and when rank 1 does."""
    unread = OSError("unread") if rank() == 1 else None
    actions: dict[str, Callable[[], object]] = {
        "odd": lambda: pretrain(data, out, override(PretrainConfig(), TINY | {"batch_size": 13})),
        "first": lambda: on_first_rank(full, CPU),
        "second": lambda: stop_together(unread, [one for (one,) in shared([float(unread is not None)], CPU)]),
        "none": lambda: stop_together(None, [0.0, 0.0]),
    }
    found = {}
    for name, action in actions.items():
        try:
            action()
        except (ValueError, OSError, PeerError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def main(folder: str, out: str) -> None:
    """Everything, into rankN.json."""
    data, cases = Dataset.load(folder), CASES + CHUNKED
    environment = {name: os.environ.pop(name) for name in ("WORLD_SIZE",)}
    alone = [outcome(case, data, Path(out)) for case in cases]
    exact = [
        one if case.double else outcome(replace(case, double=True), data, Path(out))
        for case, one in zip(cases, alone, strict=True)
    ]
    os.environ.update(environment)
    with process_group("cpu"):
        assert world_size() == 2
        found = [worst(outcome(case, data, Path(out)), expected) for case, expected in zip(cases, alone, strict=True)]
        results = {"gather": gathering(), "norm": norming(), "errors": agreement(data, Path(out))}
        rounding = [max(worst(one, best).values()) for one, best in zip(alone, exact, strict=True)]
        told = zip(cases, found, rounding, strict=True)
        steps = [{"case": asdict(case), "worst": differences, "rounding": one} for case, differences, one in told]
        Path(out, f"rank{rank()}.json").write_text(json.dumps(results | {"steps": steps}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
