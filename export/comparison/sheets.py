"""Queries with their neighbours by both encoders, side by side: those where they differ most, and some by chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.comparison.contender import ComparedEmbeddings
from training.measures.knn import neighbours

DIFFERING, RANDOM, SHOWN = 8, 4, 8


@dataclass(frozen=True)
class Sheet:
    """A query's position, and (position in the gallery, score) of its nearest by challenger and champion.

    Both find `shared` of the neighbours; `champion` is empty if there is none.
    """

    query: int
    challenger: list[tuple[int, float]]
    champion: list[tuple[int, float]]
    shared: int


def sheets(challenger: ComparedEmbeddings, champion: ComparedEmbeddings | None) -> tuple[list[Sheet], list[Sheet]]:
    """Queries whose neighbours differ most (none without a champion), and some others by chance."""
    count = len(challenger.queries.embedding)
    new = neighbours(challenger.gallery, challenger.queries.embedding, SHOWN)
    old = None if champion is None else neighbours(champion.gallery, champion.queries.embedding, SHOWN)
    shared = np.array([len(np.intersect1d(new[0][at], old[0][at])) if old is not None else 0 for at in range(count)])
    shuffled = np.random.default_rng(0).permutation(count)
    differing = shuffled[np.argsort(shared[shuffled], kind="stable")][: DIFFERING if old is not None else 0]
    others = shuffled[~np.isin(shuffled, differing)][: RANDOM if old is not None else DIFFERING + RANDOM]

    def sheet(query: int) -> Sheet:
        return Sheet(query, _pairs(new, query), _pairs(old, query) if old is not None else [], int(shared[query]))

    return [sheet(int(query)) for query in differing], [sheet(int(query)) for query in others]


def _pairs(found: tuple[NDArray[np.int64], NDArray[np.float32]], query: int) -> list[tuple[int, float]]:
    return [(int(place), float(score)) for place, score in zip(found[0][query], found[1][query], strict=True)]
