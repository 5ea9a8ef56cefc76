"""Trial queries: what an approximate base is searched for when its recall is measured.

Vectors held out of the collection are not enough. If it holds many that are nearly alike (a burst of pictures, views of
one object), a vector held out has its siblings in the base and is found with ease, and a new image is not. So there are
several sorts of query, and the recall that counts is that of the worst:

- `held out`: vectors of the collection that are not in the index.
- `between`: halfway between two of the same half per cent of the collection: among what is stored, but next to nothing.
- `aside`: a third of the way from one vector to any other, whatever it shows: less like anything than what is stored.
- `asked`: real queries, if there are some; they are kept beside the collection for every later build.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from core.files.durable import publish_file
from serving.collection.catalogue.vectors import Vectors, first_not_unit
from serving.collection.errors import CompactionError

FEWEST_HELD = 2  # of which trial queries can be made
MOST_OF_A_SORT = 400  # the standard error of recall is then about half a point
_SIMILAR = 5  # of a thousand held out, the fifth nearest is the half per cent
_ASIDE = 0.35
Sorts = Mapping[str, Vectors]  # (Q, D) of each sort, by name


def trial_queries(held: Vectors, *, asked: Vectors | None, random: np.random.Generator) -> Sorts:
    """The sorts of query made of vectors (N, D) drawn by chance; the caller adds `held` themselves.

    `asked` are real queries, of which some are drawn. All have unit norm.
    """
    some = held[:MOST_OF_A_SORT]
    sorts = {"between": _unit(some + _similar(some, held)), "aside": _unit(_mixed_with_any(held, random)[: len(some)])}
    if asked is not None and len(asked):
        sorts["asked"] = asked[np.sort(random.permutation(len(asked))[:MOST_OF_A_SORT])]
    return sorts


def asked_file(folder: Path, release: str) -> Path:
    """Where the real queries of a release are kept: an array of float32 (N, D)."""
    return folder / f"{release[:16]}.asked.npy"


def keep_asked(folder: Path, release: str, queries: Vectors) -> None:
    """Keep real queries (N, D) of unit norm in place of earlier ones. Raises `ValueError` for anything else."""
    if queries.ndim != 2 or queries.dtype.kind != "f" or not len(queries):
        raise ValueError(f"queries are {queries.dtype} of shape {queries.shape}; they must be float32 (N, D)")
    if (wrong := first_not_unit(queries)) is not None:
        raise ValueError(f"a query has norm {wrong[1]}; it must be 1")

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(queries, np.float32))

    publish_file(asked_file(folder, release), write)


def kept_asked(folder: Path, release: str, dim: int) -> Vectors | None:
    """The real queries (N, D) that are kept, if any. Raises `CompactionError` for a file that has something else."""
    path = asked_file(folder, release)
    if not path.is_file():
        return None
    try:
        queries = np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise CompactionError(f"{path} can't be read as an array: remove it ({error})") from error
    if queries.ndim != 2 or queries.shape[1] != dim or queries.dtype != np.float32:
        raise CompactionError(f"{path} has {queries.dtype} of shape {queries.shape}, not float32 (N, {dim}): remove it")
    return queries


def _similar(some: Vectors, held: Vectors) -> Vectors:
    """The fifth most similar of `held` to each of `some`, with which `held` begins."""
    scores = some @ held.T
    scores[np.arange(len(some)), np.arange(len(some))] = -np.inf
    rank = min(_SIMILAR, len(held) - 1)
    return np.asarray(held[np.argpartition(-scores, rank - 1, axis=1)[:, rank - 1]])


def _mixed_with_any(held: Vectors, random: np.random.Generator) -> Vectors:
    """Each vector mixed with one of the others."""
    order = random.permutation(len(held))
    mixed = np.empty_like(held)
    mixed[order] = (1 - _ASIDE) * held[order] + _ASIDE * held[np.roll(order, 1)]
    return mixed


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
