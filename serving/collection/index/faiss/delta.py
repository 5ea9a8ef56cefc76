"""The delta: the vectors written since the base was built, in memory, in a matrix that grows and shrinks.

A row that is written again keeps its place, and the last row moves to the place of a deleted one. So the matrix has no
holes, and its size is that of what it holds, however much is written.
"""

from collections.abc import Iterable

import numpy as np

from serving.collection.catalogue.vectors import Rows, Vectors

_LEAST = 64


class Delta:
    """Rows and their vectors (N, D), in no order."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._rows = np.empty(0, np.int64)
        self._matrix = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def rows(self) -> Rows:
        """Which rows it holds, (N,)."""
        return self._rows[: len(self)]

    @property
    def vectors(self) -> Vectors:
        """Their vectors, (N, D)."""
        return self._matrix[: len(self)]

    def put(self, rows: Rows, vectors: Vectors) -> None:
        """Hold these; a row that it already holds gets its new vector."""
        if not len(rows):
            return
        places = [self._places.setdefault(row, len(self._places)) for row in rows.tolist()]
        self._fit(vectors.shape[1])
        self._rows[places] = rows
        self._matrix[places] = vectors

    def remove(self, rows: Iterable[int]) -> None:
        """No longer hold these rows, if they were held."""
        for row in rows:
            place = self._places.pop(row, None)
            if place is None:
                continue
            last = len(self._places)
            if place != last:
                moved = int(self._rows[last])
                self._rows[place], self._matrix[place] = moved, self._matrix[last]
                self._places[moved] = place
        self._fit(self._matrix.shape[1])

    def _fit(self, dim: int) -> None:
        """Make room for what is held, and not much more."""
        needed, room = len(self._places), len(self._rows)
        if needed <= room <= max(_LEAST, 4 * needed):
            return
        size = max(_LEAST, needed + needed // 2)
        rows, matrix = np.empty(size, np.int64), np.empty((size, dim), np.float32)
        kept = min(room, needed)
        rows[:kept] = self._rows[:kept]
        if kept:
            matrix[:kept] = self._matrix[:kept]
        self._rows, self._matrix = rows, matrix
