"""Random operations on a collection against a dictionary and NumPy, each answer compared.

`python -m tests.serving.collection.model --steps 100000 --kind hnsw` runs for long and prints its counts as JSON.
Two workers, each with a catalogue and an index of its own, take turns; at times one is closed and opened again.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from msgspec import UNSET

from serving.collection.catalogue.facets import Facet
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.metadata import merged
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.catalogue.writes import Change, Delete, Deleted, Operation, Update, Updated, Upsert, Upserted
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import KINDS, Plan
from tests.serving.collection.examples import RELEASE, brute_force, clustered_vectors

DIM = 16
NAMES = 700
COLOURS = ("red", "green", "blue", None)
WRITTEN = {Upsert: Upserted, Update: Updated, Delete: Deleted}


class Divergence(AssertionError):
    """The collection answered otherwise than the dictionary."""


@dataclass(frozen=True, eq=False)
class Known:
    """What the dictionary knows of an item; `order` counts first upserts, as rows do."""

    order: int
    item: Item
    vector: Vectors


class Model:
    """A collection, the dictionary that it must equal, and a source of random operations."""

    def __init__(self, folder: Path, *, seed: int, kind: str) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._plan = Plan(kind=kind, recall_target=0.98)
        self._vectors = clustered_vectors(4 * NAMES, DIM, clusters=30, seed=seed)
        self._known: dict[str, Known] = {}
        self._created = 0
        self._near: list[float] = []
        self._workers = [self._open(create=True), self._open(create=False)]
        self.counts: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        """Do so many operations; raises `Divergence` at the first wrong answer."""
        choices: dict[Callable[[], None], int] = {
            self._write: 30,
            self._write_many: 8,
            self._search: 30,
            self._search_filtered: 12,
            self._list: 4,
            self._get: 6,
            self._facets: 4,
            self._compact: 2,
            self._reopen: 1,
        }
        for _ in range(steps):
            self._worker = self._random.randrange(2)
            (chosen,) = self._random.choices([*choices], [*choices.values()])
            self.counts[chosen.__name__.strip("_")] += 1
            chosen()

    @property
    def recall(self) -> float:
        """Of the searches that were not exact, against brute force."""
        return float(np.mean(self._near)) if self._near else 1.0

    @property
    def approximate_answers(self) -> int:
        """How many that mean is of."""
        return len(self._near)

    @property
    def _catalogue(self) -> Catalogue:
        return self._workers[self._worker][0]

    @property
    def _neighbours(self) -> FaissIndex:
        return self._workers[self._worker][1]

    def _open(self, *, create: bool) -> tuple[Catalogue, FaissIndex]:
        catalogue = open_catalogue(self._folder, create=create)
        return catalogue, FaissIndex(catalogue, RELEASE, few_rows=20)

    def _write(self) -> None:
        (outcome,) = self._catalogue.write_many([operation := self._operation()])
        self._expect(type(outcome), WRITTEN[type(operation)])
        if isinstance(outcome, Updated) and isinstance(operation, Update):
            self._expect(
                ["missing" if one.id not in self._known else None for one in operation.changes],
                ["missing" if found == "missing" else None for found in outcome.outcomes],
            )
        self._apply(operation)

    def _write_many(self) -> None:
        operations = [self._operation() for _ in range(self._random.randrange(2, 5))]
        broken = self._random.randrange(len(operations) + 1)
        bad = Upsert([self._item("bad")], np.full((1, DIM), 2, np.float32), RELEASE)
        outcomes = self._catalogue.write_many([*operations[:broken], bad, *operations[broken:]])
        refused = [at for at, outcome in enumerate(outcomes) if isinstance(outcome, CollectionError)]
        self._expect(refused, [broken])
        numbers = [outcome.seq for outcome in outcomes if not isinstance(outcome, CollectionError)]
        self._expect(numbers, list(range(numbers[0], numbers[0] + len(operations))))
        for operation in operations:
            self._apply(operation)

    def _operation(self) -> Operation:
        chance = self._random.random()
        if chance < 0.45:
            names = self._random.sample(range(NAMES), self._random.randrange(1, 9))
            made = [self._item(f"n{name}") for name in names]
            return Upsert(made, self._vectors[self._random.sample(range(len(self._vectors)), len(made))], RELEASE)
        if chance < 0.6:
            return Update([self._change(f"n{name}") for name in self._random.sample(range(NAMES), 8)])
        if chance < 0.97 or not self._known:
            return Delete([f"n{name}" for name in self._random.sample(range(NAMES), self._random.randrange(1, 12))])
        low = self._random.randrange(100)
        return Delete(where=parse_filter({"price": {"gte": low, "lt": low + 5}}))

    def _item(self, name: str) -> Item:
        metadata = {"price": self._random.randrange(100), "tags": self._random.sample(["a", "b", "c"], 2)}
        label = self._random.choice(COLOURS)
        return Item(name, Source.kept(f"{name} {self._random.random()}".encode()), label, metadata)

    def _change(self, name: str) -> Change:
        """A new label, or another price, or no tags any more."""
        patch: dict[str, Any] = self._random.choice([{"price": self._random.randrange(100)}, {"tags": None}])
        label = self._random.choice([UNSET, *COLOURS])
        return Change(name, label, patch if label is UNSET or self._random.random() < 0.5 else UNSET)

    def _apply(self, operation: Operation) -> None:
        if isinstance(operation, Upsert):
            for item, vector in zip(operation.items, operation.vectors, strict=True):
                before = self._known.get(item.id)
                self._created += before is None
                order = before.order if before is not None else self._created
                self._known[item.id] = Known(order, item, vector)
            return
        if isinstance(operation, Update):
            for change in operation.changes:
                if change.id in self._known:
                    self._known[change.id] = _changed(self._known[change.id], change)
            return
        gone = operation.ids
        if operation.where is not None:
            gone = [stored for stored in self._known if self._meant(stored, operation.where.low.value)]  # type: ignore[union-attr]
        for name in gone:
            self._known.pop(name, None)

    def _meant(self, name: str, low: Any) -> bool:
        return bool(low <= self._known[name].item.metadata["price"] < low + 5)

    def _search(self) -> None:
        self._compare(None, dict(self._known))

    def _search_filtered(self) -> None:
        low, high = sorted(self._random.sample(range(101), 2))
        label = self._random.choice(COLOURS)
        written: dict[str, Any] = {"price": {"gte": low, "lt": high}, "not": {"label": label}}
        known = {
            name: known
            for name, known in self._known.items()
            if low <= known.item.metadata["price"] < high and known.item.label != label
        }
        self._compare(written, known)

    def _compare(self, written: dict[str, Any] | None, allowed: dict[str, Known]) -> None:
        k, exact = self._random.choice([1, 10, 10, 50, 2 * NAMES]), self._random.random() < 0.3
        queries = self._vectors[self._random.sample(range(len(self._vectors)), self._random.randrange(1, 4))]
        with self._catalogue.reading():
            rows = self._catalogue.items.rows_matching(parse_filter(written)) if written is not None else None
            found = self._neighbours.search(queries, k, rows=rows, exact=exact)
            items = self._catalogue.items.at(found.rows.ravel().tolist())
        orders = np.array([known.order for known in allowed.values()], np.int64)
        vectors = np.stack([known.vector for known in allowed.values()]) if allowed else np.empty((0, DIM), np.float32)
        expected = brute_force(orders, vectors, queries, k)
        names = {known.order: name for name, known in allowed.items()}
        base = self._neighbours.base
        for query, line in enumerate(found.rows.tolist()):
            ours, theirs = [items[row].id for row in line], [names[order] for order in expected.rows[query].tolist()]
            if exact or base is None or base.kind == "exact":
                self._check_best(ours, found.scores[query], expected.scores[query], queries[query])
            else:
                self._check_near(ours, found.scores[query], theirs, queries[query])

    def _check_best(self, ours: list[str], scores: np.ndarray, expected: np.ndarray, query: Vectors) -> None:
        """Of an exact search: others, each once, only where they score alike; of equal scores the earlier row first."""
        known = [self._known[name] for name in ours]
        self._expect(len(set(ours)), len(expected))
        precise = np.array([one.vector.astype(np.float64) @ query.astype(np.float64) for one in known])
        np.testing.assert_allclose(precise, expected, rtol=0, atol=3e-7)
        np.testing.assert_allclose(scores, precise, rtol=0, atol=2e-7)
        orders = np.array([one.order for one in known])
        self._expect(np.lexsort((orders, -scores)).tolist(), [*range(len(ours))])

    def _check_near(self, ours: list[str], scores: np.ndarray, theirs: list[str], query: Vectors) -> None:
        """Of an approximate search: as many as there should be, live, each with its exact score."""
        self._expect(len(ours), len(theirs))
        for name, score in zip(ours, scores.tolist(), strict=True):
            if name not in self._known:
                raise Divergence(f"{name} was found, which is deleted")
            self._expect(abs(score - float(self._known[name].vector @ query)) < 1e-5, True)
        if len(theirs) >= 10:
            self._near.append(len(set(ours) & set(theirs)) / len(theirs))

    def _list(self) -> None:
        listed: list[str] = []
        cursor = None
        limit = self._random.choice([1000, 100])
        while True:
            page = self._catalogue.items.page(limit=limit, cursor=cursor)
            listed += [stored.id for stored in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        self._expect(listed, sorted(self._known, key=lambda name: self._known[name].order))
        self._expect(self._catalogue.items.count(), len(self._known))

    def _get(self) -> None:
        name = f"n{self._random.randrange(NAMES)}"
        stored, known = self._catalogue.items.get(name, content=True), self._known.get(name)
        self._expect(stored is None, known is None)
        if stored is not None and known is not None:
            self._expect(Item(stored.id, stored.source, stored.label, stored.metadata), known.item)
            vector = self._catalogue.vectors.of([name], RELEASE)[name]
            self._expect(vector.tolist(), known.vector.tolist())

    def _facets(self) -> None:
        low = self._random.randrange(100)
        written = {"price": {"gte": low, "lt": low + 5}}
        found = self._catalogue.items.facets(["label", "tags"], parse_filter(written), limit=2)
        meant = [known.item for name, known in self._known.items() if self._meant(name, low)]
        for key, own in {
            "label": [[one.label] for one in meant],
            "tags": [one.metadata.get("tags", []) for one in meant],
        }.items():
            counts = Counter(value for values in own for value in values if value is not None)
            best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:2]
            missing = sum(values in ([], [None]) for values in own)
            self._expect(found[key], Facet(tuple(best), len(counts), missing))

    def _compact(self) -> None:
        self._expect(compact(self._catalogue, RELEASE, self._plan), True)
        if self._random.random() < 0.5:
            self._neighbours.refresh(wait=True)

    def _reopen(self) -> None:
        catalogue, neighbours = self._workers[self._worker]
        neighbours.close()
        catalogue.close()
        self._workers[self._worker] = self._open(create=False)

    @staticmethod
    def _expect(found: object, expected: object) -> None:
        if found != expected:
            raise Divergence(f"{found!r:.500} instead of {expected!r:.500}")


def _changed(known: Known, change: Change) -> Known:
    label = known.item.label if change.label is UNSET else change.label
    metadata = known.item.metadata if change.metadata is UNSET else merged(known.item.metadata, change.metadata)
    return replace(known, item=replace(known.item, label=label, metadata=metadata))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description="Random operations on a collection against a dictionary and NumPy.")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default="exact", choices=[*KINDS])
    given = parser.parse_args(arguments)
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = Model(Path(folder), seed=given.seed, kind=given.kind)
        model.run(given.steps)
    print(
        json.dumps(
            {
                "divergences": 0,
                "steps": given.steps,
                "recall": model.recall,
                "approximate_answers": model.approximate_answers,
                **model.counts,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
