"""A collection whose content is replaced ten times over: does recall stay, do memory and disk stay bounded?

    python -m benchmarks.search.churn --embeddings EMBEDDED [--count 10000] [--turns 10] [--kind hnsw]

Inserts, deletions and searches come 4:4:1: a batch of 50 new items, 50 old ones deleted, and one search for every four
of each, so that the collection keeps its size. A turn replaces as many items as there are. A base is built when the
policy says so, in this process. After every turn: recall@10 of real queries against brute force over
SQLite's rows, memory of this process, bytes of the folder; at the end the same from a collection opened anew.
Prints a table and a last line of JSON.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import faiss
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.search.measure import K, recall_of
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.embeddings import grown as grow
from benchmarks.tools.embeddings import load_embeddings, nearest
from benchmarks.tools.filled import RELEASE, fill, item
from core.command_line.command import main
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.compaction import Policy, compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan

BATCH = 50
_WRITES = 4  # inserts and as many deletions to a search


@dataclass(frozen=True)
class Turn:
    """After a turn: recall of the index as it is, its sizes, and MB of this process and of the folder."""

    turn: int
    recall: float
    base: int
    dead: int
    delta: int
    compactions: int
    memory_mb: float
    disk_mb: float


class Churn:
    """The collection: items are numbered, and those from `first` on are there."""

    def __init__(self, folder: Path, vectors: Iterator[Vectors], *, count: int, plan: Plan) -> None:
        self.folder = folder
        self.count = count
        self._vectors = vectors
        self._plan = plan
        self._first = 0
        self._compactions = 0
        self._policy = Policy()
        parts = islice(vectors, count // BATCH)
        self._catalogue = fill(folder, parts, count=count)
        compact(self._catalogue, RELEASE, plan)
        self._neighbours = FaissIndex(self._catalogue, RELEASE)

    def turn(self, queries: Vectors) -> None:
        """Replace everything once."""
        for number in range(self.count // BATCH):
            self._replace()
            if number % _WRITES == _WRITES - 1:
                at = number % len(queries)
                self._neighbours.search(queries[at : at + 1], K)
            if self._policy.due(self._neighbours.sizes):
                compact(self._catalogue, RELEASE, self._plan)
                self._neighbours.refresh(wait=True)
                compact_again = self._policy.due(self._neighbours.sizes)
                assert not compact_again, "a base that was just built is not due again"
                self._compactions += 1

    def measure(self, turn: int, queries: Vectors) -> Turn:
        """Where it stands."""
        with self._catalogue.reading():
            found = self._neighbours.search(queries, K)
            rows, vectors = self._catalogue.vectors.at(self._catalogue.vectors.census(RELEASE).rows, RELEASE)
        truth = rows[faiss.knn(queries, vectors, K, metric=faiss.METRIC_INNER_PRODUCT)[1]]
        sizes = self._neighbours.sizes
        assert sizes.live == len(rows) == self.count
        disk = sum(path.stat().st_size for path in self.folder.iterdir())
        return Turn(
            turn=turn,
            recall=round(recall_of(found.rows, truth), 4),
            base=sizes.base,
            dead=sizes.dead,
            delta=sizes.delta,
            compactions=self._compactions,
            memory_mb=round(psutil.Process().memory_full_info().uss / 2**20, 1),
            disk_mb=round(disk / 2**20, 1),
        )

    def reopen(self) -> None:
        """As after a restart."""
        self._neighbours.close()
        self._catalogue.close()
        self._catalogue = open_catalogue(self.folder)
        self._neighbours = FaissIndex(self._catalogue, RELEASE)

    def _replace(self) -> None:
        last = self._first + self.count
        self._catalogue.upsert([item(last + at) for at in range(BATCH)], next(self._vectors), RELEASE)
        self._catalogue.delete([item(self._first + at).id for at in range(BATCH)])
        self._first += BATCH
        self._neighbours.refresh()


def run(options: argparse.Namespace, work: Path) -> list[Turn]:
    """All turns, from before the first to after a restart."""
    embeddings = load_embeddings(options.embeddings, queries=options.queries)
    count = options.count // BATCH * BATCH
    real = embeddings.stored[np.random.default_rng(0).permutation(len(embeddings.stored))]
    parts = grow(real, count * (options.turns + 1), near=nearest(real))
    churn = Churn(work / "churn", _batches(parts), count=count, plan=Plan(kind=options.kind))
    turns = [churn.measure(0, embeddings.queries)]
    for turn in tqdm(range(1, options.turns + 1), desc="turns", mininterval=5):
        churn.turn(embeddings.queries)
        turns.append(churn.measure(turn, embeddings.queries))
    churn.reopen()
    turns.append(churn.measure(options.turns, embeddings.queries))
    return turns


def _batches(parts: Iterator[Vectors]) -> Iterator[Vectors]:
    left = np.empty((0, 0), np.float32)
    for part in parts:
        joined = np.concatenate([left, part]) if len(left) else part
        whole = len(joined) // BATCH * BATCH
        yield from (joined[at : at + BATCH] for at in range(0, whole, BATCH))
        left = joined[whole:]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--embeddings", type=Path, required=True, help="a folder that simclr bulk wrote")
    parser.add_argument("--count", type=int, default=10_000, help="items of the collection (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--kind", choices=("exact", "hnsw", "ivf"), default="hnsw", help="default: %(default)s")
    parser.add_argument("--queries", type=int, default=500, help="default: %(default)s")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as work:
        turns = run(options, Path(work))
    names = list(asdict(turns[0]))
    print("".join(f"{name:>12}" for name in names))
    for one in turns:
        print("".join(f"{value:>12,}" for value in asdict(one).values()))
    return {
        "recall_least": min(one.recall for one in turns),
        "memory_mb": [one.memory_mb for one in turns],
        "disk_mb": [one.disk_mb for one in turns],
        "compactions": turns[-1].compactions,
        "recall_after_restart": turns[-1].recall,
    }


COMMAND = benchmark("benchmarks.search.churn", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
