"""The loss against the papers' equations as the loops that they are, in float64; against lightly; its floor."""

import math

import pytest
import torch
from lightly.loss import DCLLoss, NTXentLoss
from torch import Tensor
from torch.nn import functional as F

from benchmarks.training.algorithm_1 import algorithm_1
from training.model.nt_xent import loss_floor, nt_xent


def naive(z: Tensor, temperature: float, *, decoupled: bool = False) -> Tensor:
    """Khosla et al. equation 2 with images as classes; decoupled, Yeh et al. equation 6. For (V, N, d)."""
    views, count, _ = z.shape
    everyone = [(v, i) for v in range(views) for i in range(count)]
    terms = []
    for v, i in everyone:

        def weight(u: int, j: int, own: Tensor = z[v, i]) -> Tensor:
            return torch.exp(own @ z[u, j] / (own.norm() * z[u, j].norm()) / temperature)

        others = [weight(u, j) for u, j in everyone if (j != i if decoupled else (u, j) != (v, i))]
        terms += [-torch.log(weight(u, i) / torch.stack(others).sum()) for u in range(views) if u != v]
    return torch.stack(terms).mean()


def projections(views: int, n: int, d: int, *, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(n * 1000 + d)
    z = torch.randn(views, n, d, generator=generator, dtype=torch.float64) * scale
    return z.to(dtype).requires_grad_()


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_views_are_algorithm_1(n: int, temperature: float, dtype: torch.dtype) -> None:
    ours, exact = projections(2, n, 5, dtype=dtype), projections(2, n, 5)
    loss, oracle = nt_xent(ours, temperature), algorithm_1(exact[0], exact[1], temperature)
    loss.backward()
    oracle.backward()
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-6, abs=1e-6)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("decoupled", [False, True])
def test_any_number_of_views_equals_the_naive_loop(views: int, n: int, temperature: float, decoupled: bool) -> None:
    ours, exact = projections(views, n, 5, dtype=torch.float32), projections(views, n, 5)
    loss = nt_xent(ours, temperature, decoupled=decoupled)
    oracle = naive(exact, temperature, decoupled=decoupled)
    loss.backward()
    oracle.backward()
    assert loss.item() == pytest.approx(oracle.item(), rel=2e-6, abs=1e-6)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad.double(), exact.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_lightly_agrees(temperature: float) -> None:
    z = projections(2, 16, 8, dtype=torch.float32)
    theirs = NTXentLoss(temperature=temperature)(z[0], z[1])
    assert nt_xent(z, temperature).item() == pytest.approx(theirs.item(), rel=1e-5)
    decoupled = DCLLoss(temperature=temperature)(z[0], z[1])
    assert nt_xent(z, temperature, decoupled=True).item() == pytest.approx(decoupled.item(), rel=1e-5)


def test_bf16_projections_are_computed_in_float32_even_under_autocast() -> None:
    z = projections(2, 8, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(z, 0.1)
    oracle = naive(z.detach().double(), 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle.item(), abs=1e-5)


def test_known_values() -> None:
    same = torch.ones(2, 4, 3)
    assert nt_xent(same, 0.5).item() == pytest.approx(math.log(7))  # collapse: log(2N - 1)
    assert nt_xent(same, 0.5, decoupled=True).item() == pytest.approx(math.log(6))  # the positive is left out
    apart = torch.eye(4).expand(2, 4, 4)
    assert nt_xent(apart, 0.1).item() == pytest.approx(math.log(1 + 6 * math.exp(-10)), abs=1e-6)


def test_is_indifferent_to_length_to_order_and_to_which_view_is_first() -> None:
    z = projections(3, 6, 4)
    loss = nt_xent(z, 0.5).item()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert nt_xent(z * torch.tensor([3, 0.1, 1]).view(3, 1, 1), 0.5).item() == pytest.approx(loss, abs=1e-12)
    assert nt_xent(z.flip(0), 0.5).item() == pytest.approx(loss, abs=1e-12)
    assert nt_xent(z[:, order], 0.5).item() == pytest.approx(loss, abs=1e-12)


def test_large_similarities_over_a_small_temperature_stay_finite() -> None:
    z = projections(2, 4, 3, dtype=torch.float32, scale=1e4)
    loss = nt_xent(z, 1e-3)
    loss.backward()
    assert math.isfinite(loss.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()


def simplex(count: int) -> Tensor:
    """`count` unit vectors at equal angles, in as many dimensions."""
    centred = torch.eye(count, dtype=torch.float64) - 1 / count
    return F.normalize(centred, dim=1)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_floor_is_attained_by_a_simplex_and_by_nothing_undercut(
    views: int, decoupled: bool, temperature: float
) -> None:
    count = 6
    floor = loss_floor(count, views, temperature, decoupled=decoupled)
    best = nt_xent(simplex(count).expand(views, count, count), temperature, decoupled=decoupled).item()
    assert best == pytest.approx(floor, abs=1e-9)
    for width in (3, count - 1):  # too few dimensions for a simplex, and just enough
        z = projections(views, count, width)
        optimiser = torch.optim.Adam([z], lr=0.05)
        losses = []
        for _ in range(300):
            loss = nt_xent(z, temperature, decoupled=decoupled)
            losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert min(losses) >= floor - 1e-9
        if width == count - 1:
            assert losses[-1] < losses[0]
            assert min(losses) == pytest.approx(floor, abs=0.02)


@pytest.mark.parametrize(
    ("z", "temperature", "message"),
    [
        (torch.ones(2, 1, 4), 0.5, r"\(2, 1, 4\); at least 2 images"),
        (torch.ones(1, 3, 4), 0.5, r"\(1, 3, 4\); \(V, N, d\) with V at least 2"),
        (torch.ones(2, 4), 0.5, r"\(2, 4\)"),
        (torch.ones(2, 3, 4), 0.0, "temperature is 0.0"),
    ],
)
def test_errors_name_the_argument(z: Tensor, temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(z, temperature)
