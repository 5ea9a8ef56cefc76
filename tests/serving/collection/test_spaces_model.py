"""Random writes by two releases, and fillings between them, against a dictionary: who lacks what, and what is found."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.spaces import Pending
from serving.collection.catalogue.writes import Change
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE, brute_force, item, unit_vectors

STEPS = int(os.environ.get("COLLECTION_STEPS", "300"))
SPACES = (RELEASE, OTHER_RELEASE)
DIMS = {RELEASE: 16, OTHER_RELEASE: 8}


def vector_of(content: bytes, space: str) -> NDArray[np.float32]:
    """As an encoder: of the bytes alone, another one for each release."""
    vector: NDArray[np.float32] = unit_vectors(1, DIMS[space], seed=int.from_bytes(content, "big"))[0]
    return vector


class Model:
    """A collection, what its items' bytes are, and of which bytes each space has a vector or has failed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.catalogue = open_catalogue(folder, create=True)
        self.content: dict[str, bytes] = {}
        self.embedded: dict[str, dict[str, bytes]] = {space: {} for space in SPACES}
        self.failed: dict[str, set[str]] = {space: set() for space in SPACES}
        self.listed: list[tuple[str, Pending, bytes]] = []  # as one who embeds it may still hold it
        self.filled = 0
        for space in SPACES:
            self.catalogue.spaces.open(space)
        self.neighbours = {space: FaissIndex(self.catalogue, space) for space in SPACES}

    def lacking(self, space: str) -> set[str]:
        return {name for name, content in self.content.items() if self.embedded[space].get(name) != content}

    def upsert(self) -> None:
        space, other = self.random.sample(SPACES, 2)
        names = self.random.sample([f"n{number}" for number in range(40)], self.random.randrange(1, 5))
        made = []
        for name in names:
            fresh = self.random.randrange(1, 60).to_bytes(1, "big")  # few, so that bytes come back
            self.content[name] = fresh if self.random.random() < 0.7 else self.content.get(name, fresh)
            self.embedded[space][name] = self.content[name]
            self.failed[space].discard(name)
            self.failed[other].discard(name)
            made.append(item(name, content=self.content[name], turn=self.random.randrange(3)))
        self.catalogue.upsert(made, np.stack([vector_of(self.content[name], space) for name in names]), space)

    def delete(self) -> None:
        names = self.random.sample([f"n{number}" for number in range(40)], 3)
        self.catalogue.delete(names)
        for name in names:
            self.content.pop(name, None)
            for space in SPACES:
                self.embedded[space].pop(name, None)
                self.failed[space].discard(name)

    def update(self) -> None:
        """Labels and metadata: no vector is lacked for it."""
        names = self.random.sample([f"n{number}" for number in range(40)], 3)
        outcomes = self.catalogue.update([Change(name, f"label {self.random.random()}") for name in names]).outcomes
        assert outcomes == tuple("updated" if name in self.content else "missing" for name in names)

    def look(self) -> None:
        space = self.random.choice(SPACES)
        for one in self.catalogue.spaces.pending(space, limit=self.random.randrange(1, 9)):
            self.listed.append((space, one, self.content[one.id]))

    def fill(self) -> None:
        """Store what was embedded a while ago."""
        self.random.shuffle(self.listed)
        for space, one, content in [self.listed.pop() for _ in range(min(5, len(self.listed)))]:
            still = self._lacks(space, one) and self.content[one.id] == content  # also if another failed with it
            wanted = self.catalogue.spaces.fill(space, [one.row], [one.sha256], vector_of(content, space)[None])
            assert wanted == int(still)
            if still:
                self.embedded[space][one.id] = content
                self.failed[space].discard(one.id)
            self.filled += wanted

    def fail(self) -> None:
        for space, one, _ in [self.listed.pop() for _ in range(min(1, len(self.listed)))]:
            if self.catalogue.spaces.fail(space, [(one, "unreadable")]):
                assert self._lacks(space, one)
                assert one.id not in self.failed[space]
                self.failed[space].add(one.id)

    def _lacks(self, space: str, one: Pending) -> bool:
        stored = self.catalogue.items.get(one.id)
        same = stored is not None and stored.row == one.row  # not deleted and made again
        return same and one.id in self.lacking(space)

    def check(self) -> None:
        for space in SPACES:
            waiting = self.catalogue.spaces.pending(space, limit=1000)
            assert {one.id for one in waiting} == self.lacking(space) - self.failed[space]
            assert set(self.catalogue.spaces.failures(space, limit=1000)) == self.failed[space]
            assert self.catalogue.spaces.behind(space) == bool(waiting)

    def finish(self, space: str) -> None:
        """Embed all that waits, and search."""
        for one in self.catalogue.spaces.pending(space, limit=1000):
            self.catalogue.spaces.fill(space, [one.row], [one.sha256], vector_of(self.content[one.id], space)[None])
            self.embedded[space][one.id] = self.content[one.id]
        self.catalogue.spaces.retry_failed(space)
        self.failed[space].clear()
        if self.catalogue.spaces.count_pending(space):
            self.finish(space)
            return
        rows = {item.row: self.content[item.id] for item in self.catalogue.items.page(limit=1000).items}
        if rows:
            vectors = np.stack([vector_of(content, space) for content in rows.values()])
            queries = unit_vectors(2, DIMS[space], seed=self.random.randrange(99))
            found = self.neighbours[space].search(queries, 10)
            np.testing.assert_array_equal(found.rows, brute_force(np.array([*rows]), vectors, queries, 10).rows)


@pytest.mark.parametrize("seed", [1, 2])
def test_two_spaces_have_what_a_dictionary_says(tmp_path: Path, seed: int) -> None:
    model = Model(tmp_path, seed)
    weights = {model.upsert: 8, model.update: 2, model.delete: 2, model.look: 6, model.fill: 6, model.fail: 2}
    for step in range(STEPS):
        (chosen,) = model.random.choices([*weights], [*weights.values()])
        chosen()
        model.check()
        if step % 20 == 19:
            model.finish(model.random.choice(SPACES))
            model.check()
        if step % 100 == 50:
            compact(model.catalogue, model.random.choice(SPACES))
    assert model.filled > STEPS / 10
