"""How far apart two samples of embeddings are: the maximum mean discrepancy, and how often chance alone gives as much.

MMD (Gretton et al. 2012, JMLR 13) with the kernel exp(-2 |x - y|^2) of uniformity (Wang and Isola 2020): the squared
distance between the mean of one sample and that of the other, in the kernel's space. 0 means that the embeddings come
from one distribution. Which embeddings are compared, and what follows, is in `serving.collection.drift.drift`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.vectors import Vectors

PERMUTATIONS = 200
_STEEPNESS = 2.0


@dataclass(frozen=True)
class Discrepancy:
    """`mmd2` is the unbiased estimate of MMD^2, which may be a little below 0; `p` the permutation test's p-value."""

    mmd2: float
    p: float


def discrepancy(one: Vectors, other: Vectors, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Discrepancy:
    """MMD^2 between unit-norm embeddings (N, D) and (M, D), N and M at least 2.

    The p-value is the share of random divisions of all N + M into N and M, this one counted among them, that lie at
    least as far apart; with 200 of them it is at least 1/201. Raises ValueError for fewer than two embeddings.
    """
    sizes = len(one), len(other)
    if min(sizes) < 2:
        raise ValueError(f"{sizes[0]} and {sizes[1]} embeddings can't be compared; both must be at least 2")
    kernel = _kernel(np.concatenate([one, other]))
    members = np.zeros((permutations + 1, sum(sizes)), np.float32)
    members[0, : sizes[0]] = 1
    random = np.random.default_rng(seed)
    for line in members[1:]:
        line[random.permutation(sum(sizes))[: sizes[0]]] = 1
    found = _mmd2_of_divisions(kernel, members, *sizes)
    return Discrepancy(float(found[0]), float(np.mean(found >= found[0])))


def _kernel(vectors: Vectors) -> NDArray[np.float32]:
    """exp(-2 |x - y|^2) of every two of unit-norm (N, D), 0 on the diagonal: unbiased, nothing is its own pair."""
    kernel = vectors @ vectors.T
    kernel -= 1
    kernel *= 2 * _STEEPNESS  # |x - y|^2 = 2 - 2 x.y
    np.exp(kernel, out=kernel)
    np.fill_diagonal(kernel, 0)
    return kernel


def _mmd2_of_divisions(
    kernel: NDArray[np.float32], members: NDArray[np.float32], count: int, others: int
) -> NDArray[np.float64]:
    """MMD^2 of each division (P, N + M): `members` has 1 for who is in the first part, all with `count` of those.

    One product with the kernel gives the sums within the first part; those across and within the other follow.
    """
    of_rows = kernel.sum(axis=1, dtype=np.float64)
    within = np.einsum("pn,pn->p", members @ kernel, members, dtype=np.float64)
    touching = members.astype(np.float64) @ of_rows
    across = touching - within
    rest = of_rows.sum() - 2 * touching + within
    means: NDArray[np.float64] = (
        within / (count * (count - 1)) + rest / (others * (others - 1)) - 2 * across / (count * others)
    )
    return means
