"""One contract for every kind of index: what brute force over SQLite finds; capabilities say what is asserted."""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.interface import Index
from serving.collection.index.opening import open_index
from serving.collection.index.scoring import Found
from tests.serving.collection.examples import (
    QUERIES,
    RELEASE,
    assert_same,
    brute_force,
    clustered_vectors,
    fill,
    items,
    start,
    stored,
    unit_vectors,
)
from tests.serving.collection.openers import FEW, KINDS, Opener, opener_of

RECALL = 0.9


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with opener_of(request.param, tmp_path) as opener:
        yield opener


class Judge:
    """Compares searches with brute force: to the last digit, or as far as the index may be approximate."""

    def __init__(self) -> None:
        self.recalls: list[float] = []
        self.exact = 0

    def search(
        self,
        catalogue: Catalogue,
        index: Index,
        k: int,
        *,
        queries: Vectors = QUERIES,
        rows: Rows | None = None,
        exact: bool = False,
    ) -> None:
        with catalogue.reading():
            held, vectors = stored(catalogue)
            if rows is not None:
                held, vectors = held[np.isin(held, rows)], vectors[np.isin(held, rows)]
            found = index.search(queries, k, rows=rows, exact=exact)
        assert found.rows.shape == found.scores.shape == (len(queries), min(k, len(held)))
        if not len(held):
            return
        expected = brute_force(held, vectors, queries, k)
        few = rows is not None and len(np.unique(rows)) <= index.capabilities.few_rows
        if exact or few or not index.capabilities.approximate:
            assert_same(found, expected)
            self.exact += 1
        else:
            self.check_near(found, expected, held, vectors, queries)

    def check_near(
        self, found: Found, expected: Found, held: Rows, vectors: Vectors, queries: Vectors = QUERIES
    ) -> None:
        """As many as there should be, live, none twice, best first, each with its exact score."""
        for line, scores, best, query in zip(found.rows, found.scores, expected.rows, queries, strict=True):
            assert np.isin(line, held).all()
            assert len(set(line.tolist())) == len(line)
            assert_same(
                Found(scores[None], line[None]),
                brute_force(line, vectors[np.searchsorted(held, line)], query[None], len(line)),
            )
            self.recalls.append(float(np.isin(line, best).mean()))

    def close(self) -> None:
        assert not self.recalls or np.mean(self.recalls) >= RECALL


@pytest.fixture
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close()


@pytest.mark.parametrize("seed", [0, 1])
def test_random_operations_are_found_as_brute_force_finds_them(
    catalogue: Catalogue, opener: Opener, judge: Judge, tmp_path: Path, seed: int
) -> None:
    """Two workers on one collection; writes, deletions, rebuilding, reopening, and going back to a snapshot."""
    chance, numbers = random.Random(seed), np.random.default_rng(seed)
    indexes = [opener.open(catalogue), opener.open(catalogue)]
    fill(catalogue, clustered_vectors(150, seed=seed))
    saved = 0
    for step in range(30):
        act = chance.choice(["new", "replace", "delete", "settle", "reopen", "save", "restore"])
        count = chance.randint(1, 40)
        names = [f"n{number}" for number in numbers.choice(150, count, replace=False)]
        if act == "new":
            fill(catalogue, clustered_vectors(count, seed=1000 + step), prefix=f"s{step}-")
        elif act == "replace":
            catalogue.upsert(items(names), clustered_vectors(count, seed=2000 + step), RELEASE)
        elif act == "delete":
            catalogue.delete(names)
        elif act == "settle":
            opener.settle(catalogue)
        elif act == "reopen":
            indexes[0].close()
            indexes[0] = opener.open(catalogue)
        elif act == "save":
            catalogue.snapshots.save(tmp_path / "saved.sqlite")
            saved += 1
        elif saved:
            catalogue.snapshots.restore(tmp_path / "saved.sqlite")
        index = chance.choice(indexes)
        judge.search(catalogue, index, chance.choice([1, 10, 30, 1000]), exact=chance.random() < 0.3)
        rows = numbers.choice(400, chance.choice([0, 3, FEW, 60, 300]), replace=False)
        judge.search(catalogue, index, chance.choice([1, 5, 20]), rows=rows, exact=chance.random() < 0.3)
        assert len(index) == len(stored(catalogue)[0])
    assert judge.exact > 10
    for index in indexes:
        index.close()


def test_an_empty_collection_and_one_that_was_emptied_have_nothing(
    catalogue: Catalogue, opener: Opener, judge: Judge
) -> None:
    index = opener.open(catalogue)
    for exact in (False, True):
        judge.search(catalogue, index, 5, exact=exact)
    names = fill(catalogue, unit_vectors(30))
    judge.search(catalogue, index, 100)
    catalogue.delete(names)
    for rows in (None, np.arange(40)):
        judge.search(catalogue, index, 5, rows=rows)
    assert len(index) == 0
    fill(catalogue, unit_vectors(3), prefix="m")
    judge.search(catalogue, index, 5)
    index.close()


def test_a_search_of_no_queries_finds_nothing_and_what_means_nothing_is_refused(
    catalogue: Catalogue, opener: Opener
) -> None:
    fill(catalogue, unit_vectors(30))
    index = opener.open(catalogue)
    assert index.search(QUERIES[:0], 2).rows.shape[0] == 0
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        index.search(QUERIES, 0)
    with pytest.raises(ValueError, match="depth is 0; it must be at least 1"):
        index.search(QUERIES, 1, depth=0)
    with pytest.raises(ValueError, match=r"queries have the shape \(2, 8\); it must be \(Q, 16\)"):
        index.search(unit_vectors(2, 8), 1)
    with pytest.raises(ValueError, match="a query has norm nan; it must be 1"):
        index.search(QUERIES * np.float32("nan"), 1)
    index.close()


def test_equal_scores_are_ordered_by_row(catalogue: Catalogue, opener: Opener, judge: Judge) -> None:
    vectors = unit_vectors(8)[np.arange(160) % 8]
    fill(catalogue, vectors)
    opener.settle(catalogue)
    index = opener.open(catalogue)
    for k in (1, 5, 19, 21):
        judge.search(catalogue, index, k, queries=vectors[:8], exact=True)
    index.close()


def test_a_deeper_search_misses_no_more(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(1500))
    opener.settle(catalogue)
    index = opener.open(catalogue)
    expected = brute_force(*stored(catalogue), QUERIES, 10)
    found = index.search(QUERIES, 10, depth=1500)
    if index.capabilities.depth:
        assert np.isin(found.rows, expected.rows).mean() > 0.99
    else:
        assert_same(found, expected)
    index.close()


def test_every_write_is_found_by_the_next_search_of_another_opener(catalogue: Catalogue, opener: Opener) -> None:
    others = [open_catalogue(catalogue.folder), open_catalogue(catalogue.folder)]
    fill(catalogue, unit_vectors(50))
    indexes = [opener.open(other) for other in others]
    written = unit_vectors(60, seed=9)
    for turn, vector in enumerate(written):
        writer, reader = others[turn % 2], indexes[(turn + 1) % 2]
        name = f"w{turn % 7}"  # so that most are replacements
        writer.upsert(items([name]), vector[None], RELEASE)
        stored_as = writer.items.get(name)
        assert stored_as is not None
        assert reader.search(vector[None], 1).rows.tolist() == [[stored_as.row]]
        if turn % 5 == 4:
            writer.delete([name])
            assert stored_as.row not in reader.search(vector[None], 50).rows
    for index in indexes:
        index.close()


def test_a_search_of_an_earlier_moment_finds_nothing_that_came_after(
    catalogue: Catalogue, opener: Opener, judge: Judge
) -> None:
    names = fill(catalogue, unit_vectors(20))
    index, other = opener.open(catalogue), open_catalogue(catalogue.folder)
    others_index = opener.open(other)
    with ExitStack() as moment:
        moment.enter_context(catalogue.reading())
        index.refresh()
        rows, vectors = stored(catalogue)
        other.delete(names[:5])
        fresh = fill_elsewhere(other)
        others_index.refresh()
        found = index.search(QUERIES, 12)
        if index.capabilities.of_one_moment:
            assert_same(found, brute_force(rows, vectors, QUERIES, 12))
        else:
            judge.check_near(found, brute_force(rows[5:], vectors[5:], QUERIES, 12), rows, vectors)
        assert_same(index.search(QUERIES, 12, exact=True), brute_force(rows, vectors, QUERIES, 12))
    assert np.isin(fresh, index.search(QUERIES, 50).rows).all()
    index.close()
    others_index.close()


def fill_elsewhere(catalogue: Catalogue) -> list[int]:
    names = fill(catalogue, unit_vectors(5, seed=3), prefix="later")
    return [one.row for one in catalogue.items.get_many(names).values()]


WRITE_AND_WAIT = """
from serving.collection.index.choice import IndexChoice
from serving.collection.index.opening import open_index
catalogue = open_catalogue(sys.argv[1])
index = open_index(catalogue, RELEASE, index=sys.argv[2])
fill(catalogue, unit_vectors(40, seed=1))
index.search(QUERIES, 3)
catalogue.delete(["n1", "n2"])
catalogue.upsert(items(["n3", "n4"]), unit_vectors(2, seed=2), RELEASE)
fill(catalogue, unit_vectors(30, seed=3), prefix="m")
print("written", flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_process_wrote_and_did_not_send_is_found(
    catalogue: Catalogue, opener: Opener, judge: Judge
) -> None:
    child = start(WRITE_AND_WAIT, catalogue.folder, opener.choice)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    child.kill()
    child.wait()
    index = opener.open(catalogue)
    judge.search(catalogue, index, 100)
    judge.search(catalogue, index, 10, exact=True)
    index.close()


def test_an_index_that_was_lost_is_built_again(catalogue: Catalogue, opener: Opener, judge: Judge) -> None:
    fill(catalogue, unit_vectors(200))
    opener.settle(catalogue)
    opener.open(catalogue).close()
    catalogue.delete(["n5"])
    opener.lose(catalogue)
    index = open_index(catalogue, RELEASE, index=opener.choice)
    judge.search(catalogue, index, 20)
    judge.search(catalogue, index, 20, exact=True)
    index.close()


def test_one_that_slept_while_deletions_were_forgotten_begins_anew(
    catalogue: Catalogue, opener: Opener, judge: Judge
) -> None:
    names = fill(catalogue, unit_vectors(100))
    index = opener.open(catalogue)
    for part in range(3):
        catalogue.delete(names[10 * part : 10 * part + 10])
        Opener("faiss", "faiss").settle(catalogue)  # which forgets deletions, whoever asks for it
    judge.search(catalogue, index, 100)
    index.close()


def test_what_stats_tell_names_the_kind_and_fits_into_json(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(20))
    index = opener.open(catalogue)
    assert next(iter(index.facts)) == "kind"
    assert json.loads(json.dumps(index.facts)) == index.facts
    assert index.sizes.live == len(index) == 20
    assert (index.base is None) or index.capabilities.compacts_here
    index.close()
