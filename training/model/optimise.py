"""Parameter groups, the optimiser, and the one learning-rate schedule.

LARS (You et al. 2017, arXiv 1708.03888) is timm's. Its source adapts a group only when its weight decay is
not 0 or `always_adapt` is set, so the two groups here say both explicitly: weights decay and are adapted,
biases and BatchNorm do neither, as in SimCLR's own code. It multiplies the momentum buffer, not the gradient
entering it, by the global rate: PyTorch's convention, equal to the paper's while the rate is constant.
"""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from training.recipe.config import OptimiserConfig

LARS_TRUST_COEFFICIENT = 0.001


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: matrices and kernels with `weight_decay`; biases and BatchNorm (ndim <= 1) with none.

    Groups without parameters are left out.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1]
    excluded = [p for p in trained if p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": excluded, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """SGD with momentum, or LARS, over the two groups; its rate is the peak until a schedule sets it."""
    groups = parameter_groups(model, config.weight_decay)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    from timm.optim.lars import Lars  # timm takes a second to import, with all its models

    for group in groups:
        # Explicit, so that a weight decay of 0 in the configuration does not switch the adaptation off.
        group["always_adapt"] = any(p.ndim > 1 for p in group["params"])  # type: ignore[attr-defined]
    lars: torch.optim.Optimizer = Lars(
        groups, lr=config.lr, momentum=config.momentum, trust_coeff=LARS_TRUST_COEFFICIENT
    )
    return lars


def rate_factor(step: int, *, total: int, warmup: int) -> float:
    """The learning rate of step `step` (0 to total - 1) as a share of its peak, in (0, 1].

    Linear from 1 / warmup to 1 at step warmup - 1, the only step at the peak; then half a cosine that would
    reach 0 one step after the last, so that no step is wasted.
    """
    warmup = max(1, warmup)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup + 1) / (total - warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(optimiser: torch.optim.Optimizer, *, total: int, warmup: int, done: int = 0) -> LambdaLR:
    """The schedule over `total` steps, set to the rate of step `done`; call `.step()` after each step.

    Raises ValueError unless 0 <= warmup < total and 0 <= done <= total.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warmup is {warmup} steps; accepted: 0 to {total - 1} (of {total} steps)")
    if not 0 <= done <= total:
        raise ValueError(f"done is {done} steps; accepted: 0 to {total}")
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return LambdaLR(
        optimiser,
        lambda step: rate_factor(min(step, total - 1), total=total, warmup=warmup),
        last_epoch=done - 1,
    )
