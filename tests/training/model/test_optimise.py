"""Parameter groups, LARS against the paper's equations, and the exact shape of the schedule."""

import math

import pytest
import torch
from torch import Tensor, nn

from training.model.optimise import (
    LARS_TRUST_COEFFICIENT,
    build_optimiser,
    build_schedule,
    parameter_groups,
    rate_factor,
)
from training.recipe.config import OptimiserConfig


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_only_matrices_and_kernels_decay() -> None:
    model = network()
    weights, excluded = parameter_groups(model, 0.1)
    assert [p.ndim for p in weights["params"]] == [4, 2]  # type: ignore[attr-defined]
    assert [p.ndim for p in excluded["params"]] == [1, 1, 1, 1]  # type: ignore[attr-defined]
    assert (weights["weight_decay"], excluded["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_lars_equals_the_papers_equations(weight_decay: float) -> None:
    config = OptimiserConfig("lars", lr=0.3, momentum=0.9, weight_decay=weight_decay)
    model, oracle = network(), network()
    optimiser = build_optimiser(model, config)
    velocity: dict[str, Tensor] = {}
    for step in range(6):
        gradients(model, step)
        gradients(oracle, step)
        optimiser.step()
        naive_lars(oracle, config, velocity)
    for ours, naive in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(ours, naive, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def naive_lars(model: nn.Module, config: OptimiserConfig, velocity: dict[str, Tensor]) -> None:
    """You et al. 2017, Algorithm 1, and SimCLR's exclusions: v = m v + lr * local * (g + decay w); w -= v."""
    for name, w in model.named_parameters():
        assert w.grad is not None
        local, decay = 1.0, 0.0
        if w.ndim > 1:
            decay = config.weight_decay
            local = LARS_TRUST_COEFFICIENT * w.norm().item() / (w.grad.norm().item() + decay * w.norm().item())
        update = config.lr * local * (w.grad + decay * w)
        velocity[name] = config.momentum * velocity.get(name, torch.zeros_like(w)) + update
        w.sub_(velocity[name])


def test_sgd_leaves_the_excluded_undecayed() -> None:
    model = network()
    optimiser = build_optimiser(model, OptimiserConfig("sgd", lr=0.1, momentum=0.0, weight_decay=0.5))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (0.95 if old.ndim > 1 else 1.0))


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (37, 1), (12, 11), (50, 0), (2, 1), (1, 0)])
def test_the_schedule_rises_once_to_its_peak_and_falls_to_nearly_nothing(total: int, warmup: int) -> None:
    model = network()
    optimiser = build_optimiser(model, OptimiserConfig(lr=0.4))
    schedule = build_schedule(optimiser, total=total, warmup=warmup)
    rates = []
    for _ in range(total):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    peak = max(1, warmup) - 1
    assert max(rates) == rates[peak] == 0.4
    assert rates.count(0.4) == 1
    assert rates[: peak + 1] == pytest.approx([0.4 * (i + 1) / (peak + 1) for i in range(peak + 1)])
    assert all(a > b > 0 for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))
    falling = [0.2 * (1 + math.cos(math.pi * i / (total - peak))) for i in range(total - peak)]
    assert rates[peak:] == pytest.approx(falling)
    if total - warmup >= 20:
        assert rates[-1] < 0.01 * 0.4


def test_a_schedule_begun_in_the_middle_is_the_rest_of_the_whole() -> None:
    for done in (0, 3, 19, 20):
        optimiser = build_optimiser(network(), OptimiserConfig(lr=0.4))
        schedule = build_schedule(optimiser, total=20, warmup=4, done=done)
        assert schedule.get_last_lr()[0] == 0.4 * rate_factor(min(done, 19), total=20, warmup=4)


@pytest.mark.parametrize(("warmup", "done"), [(20, 0), (-1, 0), (2, 21)])
def test_steps_out_of_range(warmup: int, done: int) -> None:
    with pytest.raises(ValueError, match="accepted: 0 to"):
        build_schedule(build_optimiser(network(), OptimiserConfig()), total=20, warmup=warmup, done=done)
