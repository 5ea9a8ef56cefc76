"""What a worker searches: a mapped base, the delta of everything written since, and which rows of the base are dead.

A row of the base is dead if its item was deleted or has a newer vector. Applying the same changes twice changes
nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.vectors import Changes, Rows, Vectors
from serving.collection.index.faiss.delta import Delta
from serving.collection.index.faiss.kinds import Selector, selector_of
from serving.collection.index.faiss.mapped_base import MappedBase
from serving.collection.index.interface import Sizes


@dataclass(frozen=True, eq=False)
class Reach:
    """What one search may find: live rows of the base, and rows of the delta with their vectors.

    `chosen` are the positions in the base that a filter left; None where there is no filter.
    """

    dead: NDArray[np.bool_]
    dead_count: int
    chosen: Rows | None
    rows: Rows
    vectors: Vectors

    def __len__(self) -> int:
        return self.in_base + len(self.rows)

    @property
    def in_base(self) -> int:
        """How many rows of the base it includes."""
        return len(self.dead) - self.dead_count if self.chosen is None else len(self.chosen)

    @cached_property
    def positions(self) -> Rows:
        """Their positions in the base."""
        return np.flatnonzero(~self.dead) if self.chosen is None else self.chosen

    @cached_property
    def selector(self) -> Selector:
        """The same positions, as FAISS takes them."""
        mask = ~self.dead
        if self.chosen is not None:
            mask = np.zeros(len(self.dead), bool)
            mask[self.chosen] = True
        return selector_of(mask)


class View:
    """The collection as of write `seq`."""

    def __init__(self, base: MappedBase | None) -> None:
        self.base = base
        self.delta = Delta()
        self.seq = base.record.seq if base is not None else 0
        self.dead: NDArray[np.bool_] = np.zeros(len(base) if base is not None else 0, bool)
        self._dead_count = 0
        self._everything: Reach | None = None

    @property
    def dim(self) -> int | None:
        """D of its vectors; None while there are none."""
        if self.base is not None:
            return self.base.record.dim
        return self.delta.vectors.shape[1] if len(self.delta) else None

    @property
    def sizes(self) -> Sizes:
        """How many vectors there are."""
        return Sizes(len(self.dead), self._dead_count, len(self.delta))

    def apply(self, changes: Changes) -> None:
        """Take over what was written since `seq`."""
        if self.base is not None:
            positions = self.base.positions(np.concatenate([changes.rows, changes.deleted]))
            self.dead[positions[positions >= 0]] = True
            self._dead_count = int(self.dead.sum())
        self.delta.remove(changes.deleted.tolist())
        self.delta.put(changes.rows, changes.vectors)
        self.seq = changes.seq
        self._everything = None

    def reach(self, rows: Rows | None = None) -> Reach:
        """Everything that is live, or only those of `rows`. Valid until the next `apply`."""
        if rows is not None:
            held = np.isin(self.delta.rows, rows)
            chosen = self._live_positions(np.unique(rows))
            return Reach(self.dead, self._dead_count, chosen, self.delta.rows[held], self.delta.vectors[held])
        if self._everything is None:
            self._everything = Reach(self.dead, self._dead_count, None, self.delta.rows, self.delta.vectors)
        return self._everything

    def _live_positions(self, rows: Rows) -> Rows:
        if self.base is None:
            return np.empty(0, np.int64)
        positions = self.base.positions(rows)
        positions = positions[positions >= 0]
        return positions[~self.dead[positions]]
