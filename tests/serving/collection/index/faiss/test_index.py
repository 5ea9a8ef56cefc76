import numpy as np
import pytest

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.scoring import exact_scores
from tests.serving.collection.examples import (
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

APPROXIMATE = ("hnsw", "ivf", "ivf_rabitq")
KINDS = ("exact", *APPROXIMATE)


def test_without_a_base_everything_is_delta(catalogue: Catalogue) -> None:
    neighbours = FaissIndex(catalogue, RELEASE)
    assert len(neighbours) == 0
    assert neighbours.search(QUERIES, 5).rows.shape == (20, 0)
    fill(catalogue, unit_vectors(50))
    assert_same(neighbours.search(QUERIES, 7), brute_force(*stored(catalogue), QUERIES, 7))
    assert (neighbours.base, neighbours.sizes.delta, len(neighbours)) == (None, 50, 50)


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_an_exact_base_and_its_delta_are_brute_force(catalogue: Catalogue, k: int) -> None:
    neighbours = churned(catalogue, "exact")
    assert_same(neighbours.search(QUERIES, k), brute_force(*stored(catalogue), QUERIES, k))
    assert (neighbours.sizes.base, neighbours.sizes.dead, neighbours.sizes.delta) == (400, 50, 68)
    assert len(neighbours) == catalogue.items.count()


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("k", [1, 10, 100, 418, 1000])
def test_an_approximate_base_gives_exactly_k_live_ones_with_their_exact_scores(
    catalogue: Catalogue, kind: str, k: int
) -> None:
    neighbours = churned(catalogue, kind)
    rows, vectors = stored(catalogue)
    expected = brute_force(rows, vectors, QUERIES, k)
    found = neighbours.search(QUERIES, k)
    assert found.rows.shape == expected.rows.shape
    assert np.isin(found.rows, rows).all()
    exact = np.stack(
        [vectors[np.searchsorted(rows, line)] @ query for line, query in zip(found.rows, QUERIES, strict=True)]
    )
    np.testing.assert_allclose(found.scores, exact, atol=1e-6)
    assert np.isin(found.rows, expected.rows).mean() > 0.9
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert_same(neighbours.search(QUERIES, k, exact=True), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("allowed", [0, 1, 5, 12, 60, 300])
def test_only_allowed_rows_are_found(catalogue: Catalogue, kind: str, allowed: int) -> None:
    neighbours = churned(catalogue, kind)
    rows, vectors = stored(catalogue)
    chosen = np.sort(np.random.default_rng(allowed).choice(len(rows), allowed, replace=False))
    asked = np.concatenate([rows[chosen][::-1], [1, 4, 10**9]])  # the last are deleted or never were
    expected = brute_force(rows[chosen], vectors[chosen], QUERIES, 10)
    found = neighbours.search(QUERIES, 10, rows=asked)
    if kind == "exact" or allowed <= 12:
        assert_same(found, expected)
    assert found.rows.shape == expected.rows.shape
    assert np.isin(found.rows, rows[chosen]).all()
    assert allowed == 0 or np.isin(found.rows, expected.rows).mean() > 0.9
    assert_same(neighbours.search(QUERIES, 10, rows=asked, exact=True), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_k_live_ones_are_found_in_the_middle_of_a_cluster_that_was_deleted(catalogue: Catalogue, kind: str) -> None:
    centre = unit_vectors(1, seed=3)
    close = centre + unit_vectors(200, seed=4) * 0.05
    close /= np.linalg.norm(close, axis=1, keepdims=True)
    gone = fill(catalogue, close.astype(np.float32), prefix="gone")
    fill(catalogue, unit_vectors(200))
    compact(catalogue, RELEASE, Plan(kind=kind, recall_target=0.5))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=0)
    catalogue.delete(gone[:-3])
    found = neighbours.search(centre, 20)
    expected = brute_force(*stored(catalogue), centre, 20)
    assert found.rows.shape == (1, 20)
    if kind == "hnsw":  # few cells may hide some of the last ones
        assert_same(found, expected)
    assert found.rows[0, :3].tolist() == expected.rows[0, :3].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_equal_scores_are_ordered_by_row_wherever_they_lie(catalogue: Catalogue, kind: str) -> None:
    vectors = unit_vectors(8)[np.arange(320) % 8]
    fill(catalogue, vectors)
    compact(catalogue, RELEASE, Plan(kind=kind, recall_target=0.5))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=0)
    catalogue.upsert(items(["n8", "n0"]), vectors[[8, 0]] * -1, RELEASE)
    catalogue.upsert(items(["n8"]), vectors[[8]], RELEASE)  # back again, in the delta now
    fill(catalogue, vectors[:8], prefix="m")
    for exact in (True, False) if kind == "exact" else (True,):
        for k in (1, 5, 39, 41, 45):
            found = neighbours.search(vectors[:8], k, exact=exact)
            assert_same(found, brute_force(*stored(catalogue), vectors[:8], k))
    assert found.rows[0, :3].tolist() == [9, 17, 25]


def test_scores_that_differ_by_the_order_of_summing_are_ordered_alike_however_they_are_compared(
    catalogue: Catalogue,
) -> None:
    """Of 300 vectors with the same numbers in another order each, all of which score alike but for rounding."""
    random = np.random.default_rng(0)
    one = np.abs(unit_vectors(1, 64)[0])
    vectors = np.stack([random.permutation(one) for _ in range(300)])
    fill(catalogue, vectors)
    query = np.full((1, 64), 1 / 8, np.float32)
    scores = exact_scores(query, vectors, np.arange(300)[None])[0]
    assert 1 < len(np.unique(scores)) < 50
    expected = np.lexsort((np.arange(300), -scores)) + 1
    before = FaissIndex(catalogue, RELEASE).search(query, 300)  # all of it in the delta
    compact(catalogue, RELEASE)
    neighbours = FaissIndex(catalogue, RELEASE)
    for found in (before, neighbours.search(query, 300), neighbours.search(query, 300, rows=np.arange(1, 301))):
        np.testing.assert_array_equal(found.rows[0], expected)
    np.testing.assert_array_equal(neighbours.search(query, 5).rows[0], expected[:5])


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])  # one bit a number says too little of vectors of 16
def test_a_search_that_is_told_to_go_deeper_finds_more(catalogue: Catalogue, kind: str) -> None:
    fill(catalogue, unit_vectors(1500))
    compact(catalogue, RELEASE, Plan(kind=kind, recall_target=0.1))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=0)
    expected = brute_force(*stored(catalogue), QUERIES, 10)
    as_built, deep = (neighbours.search(QUERIES, 10, depth=depth) for depth in (None, 400))
    assert np.isin(as_built.rows, expected.rows).mean() < np.isin(deep.rows, expected.rows).mean()
    assert_same(deep, expected)


def test_a_shallow_search_that_goes_short_is_completed(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(400))
    compact(catalogue, RELEASE, Plan(kind="ivf", recall_target=0.1))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=0)
    assert neighbours.base is not None
    assert neighbours.base.facts["depth"] == 1  # of ten cells
    assert_same(neighbours.search(QUERIES, 300), brute_force(*stored(catalogue), QUERIES, 300))


def test_a_filter_and_a_search_of_one_moment(catalogue: Catalogue) -> None:
    names = [f"n{number}" for number in range(60)]
    catalogue.upsert([item(name, even=n % 2 == 0) for n, name in enumerate(names)], unit_vectors(60), RELEASE)
    neighbours = FaissIndex(catalogue, RELEASE)
    even = parse_filter({"even": True})
    with catalogue.reading():
        found = neighbours.search(QUERIES, 5, rows=catalogue.items.rows_matching(even))
        assert {item.id for item in catalogue.items.at(found.rows.ravel().tolist()).values()} <= set(names[::2])
    rows, vectors = stored(catalogue)
    assert_same(found, brute_force(rows[::2], vectors[::2], QUERIES, 5))


def test_a_search_that_means_nothing_is_refused(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(3))
    neighbours = FaissIndex(catalogue, RELEASE)
    with pytest.raises(ValueError, match="k is 0; it must be at least 1"):
        neighbours.search(QUERIES, 0)
    with pytest.raises(ValueError, match="depth is 0; it must be at least 1"):
        neighbours.search(QUERIES, 1, depth=0)
    with pytest.raises(ValueError, match=r"queries have the shape \(2, 8\); it must be \(Q, 16\)"):
        neighbours.search(unit_vectors(2, 8), 1)
    with pytest.raises(ValueError, match="a query has norm nan; it must be 1"):
        neighbours.search(QUERIES * np.float32("nan"), 1)
    assert neighbours.search(QUERIES[:0], 2).rows.shape[0] == 0
