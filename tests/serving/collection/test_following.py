from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import IndexUnusable
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from tests.serving.collection.examples import (
    DAMAGE,
    OTHER_RELEASE,
    QUERIES,
    RELEASE,
    assert_same,
    brute_force,
    churned,
    fill,
    item,
    items,
    stored,
    unit_vectors,
)


def test_a_base_that_went_while_a_moment_was_read_is_replaced_by_what_sqlite_has(catalogue: Catalogue) -> None:
    """Asleep for two compactions, then two more while it reads: the base of its moment is gone."""
    fill(catalogue, unit_vectors(150))
    compact(catalogue, RELEASE)
    neighbours = FaissIndex(catalogue, RELEASE)

    def compact_twice(prefix: str) -> None:
        other = open_catalogue(catalogue.folder)
        for turn in range(2):
            fill(other, unit_vectors(5, seed=turn), prefix=f"{prefix}{turn}-")
            other.delete([f"{prefix}{turn}-1"])
            assert compact(other, RELEASE)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(compact_twice, "before").result()
        with catalogue.reading():
            expected = brute_force(*stored(catalogue), QUERIES, 10)
            named = catalogue.bases.get(RELEASE)
            assert named is not None
            pool.submit(compact_twice, "after").result()
            assert not (catalogue.folder / named.file).exists()
            assert_same(neighbours.search(QUERIES, 10), expected)
        neighbours.refresh(wait=True)
        assert neighbours.base == catalogue.bases.get(RELEASE)
        assert_same(neighbours.search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))


def test_two_workers_see_each_others_writes(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(20))
    other = open_catalogue(catalogue.folder)
    one, two = FaissIndex(catalogue, RELEASE), FaissIndex(other, RELEASE)
    for step, vector in enumerate(unit_vectors(50, seed=9)):
        writer, reader = ((catalogue, two), (other, one))[step % 2]
        writer.upsert([item(f"s{step}")], vector[None], RELEASE)
        found = reader.search(vector[None], 1)
        assert other.items.at([int(found.rows[0, 0])])[int(found.rows[0, 0])].id == f"s{step}"
        writer.delete([f"s{step}"])
        assert reader.search(vector[None], 1).rows[0, 0] <= 20


def test_a_new_base_is_taken_over_and_the_old_one_goes_on_until_it_is(catalogue: Catalogue) -> None:
    neighbours = churned(catalogue, "exact")
    assert_same(neighbours.search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))
    first = neighbours.base
    for turn in range(3):
        assert compact(catalogue, RELEASE)
        fill(catalogue, unit_vectors(5, seed=turn), prefix=f"turn{turn}")
        catalogue.delete([f"m{turn + 10}"])
        assert_same(neighbours.search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))
        neighbours.refresh(wait=True)
        assert neighbours.base == catalogue.bases.get(RELEASE) != first
        assert (neighbours.sizes.delta, neighbours.sizes.dead) == (5, 1)
        assert_same(neighbours.search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))


def test_who_slept_through_several_compactions_starts_from_the_base_that_is_named(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(50))
    asleep = FaissIndex(catalogue, RELEASE)
    with_base = FaissIndex(open_catalogue(catalogue.folder), RELEASE)
    for turn in range(4):
        catalogue.delete([f"n{turn}"])
        compact(catalogue, RELEASE)
        if turn == 0:
            with_base.refresh(wait=True)
    assert catalogue.stats().deletions_on_record < 4
    for neighbours in (asleep, with_base):
        assert_same(neighbours.search(QUERIES, 50), brute_force(*stored(catalogue), QUERIES, 50))
        assert len(neighbours) == 46


def test_a_collection_that_is_emptied_loses_its_base_and_fills_again(catalogue: Catalogue) -> None:
    names = fill(catalogue, unit_vectors(30))
    compact(catalogue, RELEASE)
    neighbours = FaissIndex(catalogue, RELEASE)
    catalogue.delete(names)
    assert neighbours.search(QUERIES, 5).rows.shape == (20, 0)
    compact(catalogue, RELEASE)
    assert catalogue.bases.get(RELEASE) is None
    assert neighbours.search(QUERIES, 5).rows.shape == (20, 0)
    assert neighbours.base is None
    fill(catalogue, unit_vectors(3))
    assert_same(neighbours.search(QUERIES, 5), brute_force(*stored(catalogue), QUERIES, 5))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_base_is_refused_and_built_again(catalogue: Catalogue, damage: str) -> None:
    fill(catalogue, unit_vectors(50))
    compact(catalogue, RELEASE)
    base = catalogue.bases.get(RELEASE)
    assert base is not None
    DAMAGE[damage](catalogue.folder / base.file)
    with pytest.raises(IndexUnusable, match="compact the collection to build it again"):
        FaissIndex(catalogue, RELEASE)
    compact(catalogue, RELEASE)
    neighbours = FaissIndex(catalogue, RELEASE)
    assert_same(neighbours.search(QUERIES, 5), brute_force(*stored(catalogue), QUERIES, 5))


def test_a_new_base_that_is_damaged_is_not_taken_over(catalogue: Catalogue) -> None:
    neighbours = churned(catalogue, "exact")
    before = neighbours.search(QUERIES, 10)
    compact(catalogue, RELEASE)
    named = catalogue.bases.get(RELEASE)
    assert named is not None
    DAMAGE["flipped"](catalogue.folder / named.file)
    with pytest.raises(IndexUnusable, match="altered"):
        neighbours.refresh(wait=True)
    assert_same(neighbours.search(QUERIES, 10), before)
    fill(catalogue, unit_vectors(5, seed=8), prefix="later")
    assert_same(neighbours.search(QUERIES, 10), brute_force(*stored(catalogue), QUERIES, 10))
    compact(catalogue, RELEASE)
    neighbours.refresh(wait=True)
    assert neighbours.base == catalogue.bases.get(RELEASE)


def test_releases_are_apart(catalogue: Catalogue) -> None:
    names = fill(catalogue, unit_vectors(30))
    catalogue.upsert(items(names[:10]), unit_vectors(10, 8, seed=1), OTHER_RELEASE)
    compact(catalogue, RELEASE)
    compact(catalogue, OTHER_RELEASE)
    ours, other = FaissIndex(catalogue, RELEASE), FaissIndex(catalogue, OTHER_RELEASE)
    catalogue.delete(["n3"])
    assert (len(ours), len(other)) == (30, 10)
    queries = unit_vectors(4, 8, seed=2)
    assert_same(other.search(queries, 20), brute_force(*stored(catalogue, OTHER_RELEASE), queries, 20))
    assert_same(ours.search(QUERIES, 50), brute_force(*stored(catalogue), QUERIES, 50))


def test_closed_it_lets_go_of_its_base(catalogue: Catalogue) -> None:
    neighbours = churned(catalogue, "exact")
    before = neighbours.base
    assert before is not None
    compact(catalogue, RELEASE)
    assert (catalogue.folder / before.file).exists()
    neighbours.close()
    compact(catalogue, RELEASE)
    assert not (catalogue.folder / before.file).exists()
