"""SimCLR's loss as the paper writes it (Chen et al. 2020, Algorithm 1): a naive loop that others are compared with."""

import torch
from torch import Tensor


def algorithm_1(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The loss of two views (N, D) of the same images, in their order."""
    n = len(first)
    z = [row for pair in zip(first, second, strict=True) for row in pair]  # z_{2k-1}, z_{2k} are a pair
    s = [[a @ b / (a.norm() * b.norm()) for b in z] for a in z]

    def loss(i: int, j: int) -> Tensor:
        others = [torch.exp(s[i][k] / temperature) for k in range(2 * n) if k != i]
        return -torch.log(torch.exp(s[i][j] / temperature) / torch.stack(others).sum())

    terms = [loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)]
    return torch.stack(terms).sum() / (2 * n)
