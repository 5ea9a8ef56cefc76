"""The processes that `benchmarks.durability.durability` kills: writers, a compactor, and one that writes on request.

    python -m benchmarks.durability.child ROLE FOLDER NAME FIRST [RELEASE]

Each says what it is about to do, does it, and says that it is done: a line before, a line after.
"""

import itertools
import json
import sys
from pathlib import Path

import faiss
import numpy as np

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.kinds import Plan

RELEASE = "d" * 64
DIM = 32
BATCH = 7
KEPT = 40  # batches of a writer, before it deletes the oldest
KINDS = ("exact", "hnsw")


def names_of(writer: str, number: int) -> list[str]:
    """The ids of a batch."""
    return [f"{writer}-{number}-{part}" for part in range(BATCH)]


def vectors_of(writer: str, number: int, count: int = BATCH) -> Vectors:
    """A batch's vectors (count, DIM): anyone can tell what they must be."""
    vectors = np.random.default_rng([*writer.encode(), number]).normal(size=(count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def items_of(names: list[str], label: str | None = None) -> list[Item]:
    """Items of these ids."""
    return [Item(name, Source.kept(name.encode(), "text/plain"), label, {"name": name}) for name in names]


def write(catalogue: Catalogue, writer: str, first: int) -> None:
    """Store batch after batch, and delete the one that was stored `KEPT` before."""
    for number in itertools.count(first):
        _say("storing", number)
        catalogue.upsert(items_of(names_of(writer, number)), vectors_of(writer, number), RELEASE)
        _say("stored", number)
        if number >= KEPT:
            _say("deleting", number - KEPT)
            catalogue.delete(names_of(writer, number - KEPT))
            _say("deleted", number - KEPT)


def compact_forever(catalogue: Catalogue, first: int, release: str) -> None:
    """One compaction after the other, of both kinds in turn."""
    for number in itertools.count(first):
        _say("compacting", number)
        compact(catalogue, release, Plan(kind=KINDS[number % len(KINDS)], held_out=50))
        _say("compacted", number)


def move(catalogue: Catalogue) -> None:
    """For each line heard: give the item `moving` the next vector and label, then say so."""
    for number, _ in enumerate(sys.stdin):
        catalogue.upsert(items_of(["moving"], str(number)), vectors_of("moving", number, 1), RELEASE)
        _say("stored", number)


def _say(word: str, number: int) -> None:
    sys.stdout.write(json.dumps([word, number]) + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command; it runs until it is killed, or has no more to hear."""
    role, folder, name, first, *more = sys.argv[1:]
    faiss.omp_set_num_threads(1)
    catalogue = open_catalogue(Path(folder))
    if role == "write":
        write(catalogue, name, int(first))
    elif role == "compact":
        compact_forever(catalogue, int(first), *(more or [RELEASE]))
    else:
        move(catalogue)


if __name__ == "__main__":
    main()
