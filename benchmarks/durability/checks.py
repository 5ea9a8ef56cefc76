"""Compares a collection with what its writers said, while they go on writing.

What was acknowledged before the collection is read must be in it, unless its deletion had begun by the time of the
reading; a writer announces what it begins.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.durability.child import BATCH, DIM, RELEASE, vectors_of
from benchmarks.durability.worker import Heard
from benchmarks.tools.vectors import brute_force, unit_vectors
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.sqlite.catalogue import SqliteCatalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.faiss.index import FaissIndex

Batch = tuple[str, int]
K = 20


class Writer(Protocol):
    """Whose account is compared."""

    role: str
    name: str
    heard: Callable[[], Heard]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is stored by which release: what the vectors (BATCH, D) of a batch must be, how nearly; queries (Q, D)."""

    release: str
    vectors_of: Callable[[str, int], Vectors]
    queries: Vectors
    tolerance: float = 0.0


MADE_UP = Subject(RELEASE, vectors_of, unit_vectors(4, DIM, seed=11))


class Judge:
    """Counts what is wrong, over all checks."""

    def __init__(self, catalogue: Catalogue, workers: Sequence[Writer], subject: Subject = MADE_UP) -> None:
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("acknowledged", "acknowledged_lost", "partial_batches", "divergences"), 0)
        )
        self._catalogue = catalogue
        self._subject = subject
        self._writers = [worker for worker in workers if worker.role == "write"]
        self._lasting = {batch for batch in self._present()[0] if batch[0] not in [one.name for one in self._writers]}
        self._neighbours = FaissIndex(catalogue, subject.release, few_rows=0)

    def check(self, *, whole: bool) -> None:
        """Compare once; with `whole`, also through an index opened anew, and with SQLite's own checks."""
        before = {writer.name: writer.heard() for writer in self._writers}
        with self._catalogue.reading():
            present, rows, vectors = self._present()
            self._search(self._neighbours, rows, vectors)
        after = {writer.name: writer.heard() for writer in self._writers}
        self.counts["searches compared"] += 2
        self.counts["partial_batches"] += sum(count != BATCH for count in present.values())
        self.counts["acknowledged_lost"] += len(self._lasting - present.keys())
        for name, heard in before.items():
            self.counts["acknowledged_lost"] += lost(name, heard, after[name], present)
        if whole:
            self._check_whole()

    def close(self) -> None:
        """Let go of the collection."""
        self._neighbours.close()

    def _check_whole(self) -> None:
        anew = FaissIndex(self._catalogue, self._subject.release, few_rows=0)
        with self._catalogue.reading():
            _, rows, vectors = self._present()
            self._search(anew, rows, vectors)
        self.counts["searches compared"] += 2
        anew.close()
        assert isinstance(self._catalogue, SqliteCatalogue)
        db = self._catalogue.database.connection
        self.counts["divergences"] += db.execute("PRAGMA integrity_check").get != "ok"
        self.counts["divergences"] += len(db.execute("PRAGMA foreign_key_check").fetchall())

    def _present(self) -> tuple[dict[Batch, int], Rows, Vectors]:
        """Which batches are there, with how many items; all rows and vectors of this moment."""
        release = self._subject.release
        rows, vectors = self._catalogue.vectors.at(self._catalogue.vectors.census(release).rows, release)
        items = self._catalogue.items.at(rows.tolist())
        present: Counter[Batch] = Counter()
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            writer, number, part = items[row].id.split("-")
            present[writer, int(number)] += 1
            right = self._subject.vectors_of(writer, int(number))[int(part)]
            self.counts["divergences"] += not np.allclose(right, vector, rtol=0, atol=self._subject.tolerance)
        self.counts["divergences"] += abs(self._catalogue.items.count() - len(rows))
        return present, rows, vectors

    def _search(self, neighbours: FaissIndex, rows: Rows, vectors: Vectors) -> None:
        """In full: brute force, but for rounding. As usual: as many as there are, live, each with its exact score."""
        queries = self._subject.queries
        expected = brute_force(rows, vectors, queries, K)
        in_full, usual = neighbours.search(queries, K, exact=True), neighbours.search(queries, K)
        self.counts["divergences"] += not _near(in_full.scores, expected.scores)
        for found in (in_full, usual):
            at = np.minimum(np.searchsorted(rows, found.rows), len(rows) - 1)
            live = found.rows.shape == expected.rows.shape and np.array_equal(rows[at], found.rows)
            self.counts["divergences"] += not (live and all(len({*line}) == len(line) for line in found.rows.tolist()))
            if live:
                exact = np.einsum("qkd,qd->qk", vectors[at].astype(np.float64), queries.astype(np.float64))
                self.counts["divergences"] += not _near(found.scores, exact)


def _near(scores: NDArray[Any], expected: NDArray[Any]) -> bool:
    return scores.shape == expected.shape and np.allclose(scores, expected, rtol=0, atol=1e-6)


def lost(writer: str, before: Heard, after: Heard, present: dict[Batch, int]) -> int:
    """How many acknowledged writes the collection does not have: batches that are not there, deleted ones that are."""
    there = {number for name, number in present if name == writer}
    return len(before.stored - after.deleting - there) + len(before.deleted & there)
