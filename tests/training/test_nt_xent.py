"""NT-Xent against Algorithm 1 of the paper, written as the loop that it is, in float64."""

import math

import pytest
import torch
from torch import Tensor

from training.nt_xent import nt_xent


def algorithm_1(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    n = len(first)
    z = [row for pair in zip(first, second, strict=True) for row in pair]  # z_{2k-1}, z_{2k} are a pair
    s = [[a @ b / (a.norm() * b.norm()) for b in z] for a in z]

    def loss(i: int, j: int) -> Tensor:
        others = [torch.exp(s[i][k] / temperature) for k in range(2 * n) if k != i]
        return -torch.log(torch.exp(s[i][j] / temperature) / torch.stack(others).sum())

    terms = [loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)]
    return torch.stack(terms).sum() / (2 * n)


def pair(n: int, d: int, *, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 1000 + d)
    first, second = (torch.randn(n, d, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    return first.to(dtype).requires_grad_(), second.to(dtype).requires_grad_()


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_naive_loop(n: int, temperature: float, dtype: torch.dtype) -> None:
    ours, naive = pair(n, 5, dtype=dtype), pair(n, 5)
    loss, oracle = nt_xent(*ours, temperature), algorithm_1(*naive, temperature)
    loss.backward()
    oracle.backward()
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-6, abs=1e-6)
    for a, b in zip(ours, naive, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-6, rtol=1e-5)


def test_bf16_projections_are_computed_in_float32_even_under_autocast() -> None:
    first, second = pair(8, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(first, second, 0.1)
    oracle = algorithm_1(first.detach().double(), second.detach().double(), 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle.item(), abs=1e-5)


def test_known_values() -> None:
    same = torch.ones(4, 3)
    assert nt_xent(same, same, 0.5).item() == pytest.approx(math.log(7))  # collapse: log(2N - 1)
    apart = torch.eye(4)
    floor = math.log(1 + 6 * math.exp(-10))
    assert nt_xent(apart, apart, 0.1).item() == pytest.approx(floor, abs=1e-6)


def test_is_indifferent_to_length_to_order_and_to_which_view_is_first() -> None:
    first, second = pair(6, 4)
    loss = nt_xent(first, second, 0.5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert nt_xent(3 * first, second / 7, 0.5).item() == pytest.approx(loss.item(), abs=1e-12)
    assert nt_xent(second, first, 0.5).item() == pytest.approx(loss.item(), abs=1e-12)
    assert nt_xent(first[order], second[order], 0.5).item() == pytest.approx(loss.item(), abs=1e-12)


def test_large_similarities_over_a_small_temperature_stay_finite() -> None:
    first, second = pair(4, 3, dtype=torch.float32, scale=1e4)
    loss = nt_xent(first, second, 1e-3)
    loss.backward()
    assert math.isfinite(loss.item())
    assert first.grad is not None
    assert first.grad.isfinite().all()


@pytest.mark.parametrize(
    ("first", "second", "temperature", "message"),
    [
        (torch.ones(1, 4), torch.ones(1, 4), 0.5, r"\(1, 4\).*N at least 2"),
        (torch.ones(3, 4), torch.ones(2, 4), 0.5, r"\(3, 4\) and second \(2, 4\)"),
        (torch.ones(4), torch.ones(4), 0.5, "same"),
        (torch.ones(3, 4), torch.ones(3, 4), 0.0, "temperature is 0.0"),
    ],
)
def test_errors_name_the_argument(first: Tensor, second: Tensor, temperature: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(first, second, temperature)
