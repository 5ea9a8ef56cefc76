"""What the operations on a collection need of an index, and how kinds of index differ.

The catalogue is the truth. An index is a cache of one release's vectors that may be thrown away at any moment. It
follows the catalogue by sequence number, and every search sees every write acknowledged before it. Scores are exact
whatever found the rows, and only rows that the catalogue has are found. Flags of `Capabilities` say where kinds differ;
`tests/serving/collection/index/test_conformance.py` holds all of them to this.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.vectors import UNIT_TOLERANCE, Rows, Vectors
from serving.collection.index.scoring import Found


@dataclass(frozen=True)
class Capabilities:
    """Where kinds of index differ.

    `approximate`: a search that does not ask for `exact` may miss some of the best. `depth`: such a search takes a
    depth. `few_rows`: a filter that leaves at most this many rows has all of them compared, so none is missed.
    `several_processes`: several workers may share it. `elsewhere`: it takes its memory and time outside the worker,
    perhaps on another machine. `shared_memory`: workers on this machine use one copy. `compacts_here`: it has a base
    that `serving.collection.index.faiss.compaction` rebuilds. `of_one_moment`: within `catalogue.reading()` a search is
    of that block's moment; otherwise it may miss what others have deleted or replaced since, but never finds what was
    not live then.
    """

    approximate: bool
    depth: bool
    few_rows: int
    several_processes: bool
    elsewhere: bool
    shared_memory: bool
    compacts_here: bool
    of_one_moment: bool


@dataclass(frozen=True)
class Sizes:
    """How many vectors are in the base, how many of those are dead, and how many are in the delta."""

    base: int
    dead: int
    delta: int

    @property
    def live(self) -> int:
        """How many can be found."""
        return self.base - self.dead + self.delta


class Index(Protocol):
    """The vectors of one release, ready to search. Threads may share it; they take turns."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def sizes(self) -> Sizes:
        """How many vectors there are, as of the last refresh."""

    @property
    def base(self) -> BaseRecord | None:
        """The FAISS file in use, if it has one."""

    @property
    def facts(self) -> dict[str, Any]:
        """What `stats` shows of it, its `kind` first; nothing secret."""

    def __len__(self) -> int:
        """How many vectors can be found, as of the last refresh."""

    def refresh(self, *, wait: bool = False) -> None:
        """Take over everything committed by now; with `wait`, also a new base that could be taken over later.

        Raises `IndexUnusable` if it can't go on.
        """

    def search(
        self, queries: Vectors, k: int, *, rows: Rows | None = None, exact: bool = False, depth: int | None = None
    ) -> Found:
        """The `k` rows of highest cosine similarity to each query (Q, D), unit norm; fewer where there are fewer.

        `rows` are the only ones allowed, in any order; `exact` compares every vector, however long that takes; `depth`
        is how deep an approximate index is searched. For a filter and a search of the same moment, call both inside one
        `catalogue.reading()`. Raises `ValueError` for arguments out of range, `IndexUnusable` if it can't search.
        """

    def close(self) -> None:
        """Let go of everything held."""


def check_numbers(*, k: int, depth: int | None) -> None:
    """ValueError unless `k` and, where given, `depth` are at least 1."""
    for name, value in (("k", k), ("depth", depth)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def check_queries(queries: Vectors, dim: int | None) -> None:
    """ValueError unless these are queries (Q, D) of unit norm; any D where `dim` is not known."""
    if queries.ndim != 2 or dim not in (None, queries.shape[1]):
        raise ValueError(f"queries have the shape {queries.shape}; it must be (Q, {dim or 'D'})")
    norms = np.linalg.norm(queries, axis=1)
    if wrong := norms[~(np.abs(norms - 1.0) <= UNIT_TOLERANCE)].tolist():  # also those that are not finite
        raise ValueError(f"a query has norm {wrong[0]}; it must be 1")
