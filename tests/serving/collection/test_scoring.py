import numpy as np
import pytest

from serving.collection.scoring import Best, rank
from serving.collection.vectors import Rows, Vectors
from tests.serving.collection.examples import assert_same, brute_force, unit_vectors


def with_duplicates(count: int, kinds: int, dim: int = 8) -> Vectors:
    return unit_vectors(kinds, dim)[np.random.default_rng(1).integers(kinds, size=count)]


@pytest.mark.parametrize(("count", "kinds"), [(300, 300), (300, 7), (9000, 40)])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_however_it_is_offered_the_best_are_those_of_brute_force(count: int, kinds: int, k: int) -> None:
    vectors, queries = with_duplicates(count, kinds), unit_vectors(6, 8, seed=2)
    rows = np.random.default_rng(3).permutation(count).astype(np.int64) + 10
    expected = brute_force(rows, vectors, queries, k)
    whole, parts = Best(queries, k), Best(queries, k)
    whole.offer(rows, vectors)
    for start, stop in ((0, 5), (5, 100), (100, 101), (101, count)):
        parts.offer(rows[start:stop], vectors[start:stop], only=[0, 2, 4])
        parts.offer(rows[start:stop], vectors[start:stop], only=[1, 3, 5])
    assert_same(whole.found(), expected)
    assert_same(parts.found(), expected)


def test_candidates_are_fetched_together_and_ranked_by_query() -> None:
    vectors, queries = unit_vectors(2000, 8), unit_vectors(30, 8, seed=2)
    random = np.random.default_rng(0)
    candidates = [random.choice(2000, 500, replace=False) for _ in queries]
    fetched: list[int] = []

    def fetch(rows: Rows) -> tuple[Rows, Vectors]:
        assert (np.diff(rows) > 0).all()
        fetched.append(len(rows))
        return rows, vectors[rows]

    best = Best(queries, 20)
    rank(best, candidates, fetch)
    found = best.found()
    for query, chosen in enumerate(candidates):
        expected = brute_force(chosen, vectors[chosen], queries[query : query + 1], 20)
        np.testing.assert_array_equal(found.rows[query], expected.rows[0])
    assert len(fetched) == 4  # 8 queries of 500 at once


def test_candidates_that_are_gone_are_passed_over() -> None:
    vectors, queries = unit_vectors(20, 8), unit_vectors(2, 8, seed=2)
    candidates = [np.array([5, 6, 19, 4]), np.array([19])]
    for there in ([6, 8], [4, 5, 6], [19], []):
        rows = np.array(there, np.int64)
        best = Best(queries, 5)
        rank(best, candidates, lambda _, rows=rows: (rows, vectors[rows]))  # type: ignore[misc]
        for query, chosen in enumerate(candidates):
            kept = np.intersect1d(chosen, rows)
            expected = brute_force(kept, vectors[kept], queries[query : query + 1], 5)
            np.testing.assert_array_equal(best.scores()[query], expected.scores[0])


def test_scores_never_leave_their_range() -> None:
    vector = unit_vectors(1, 2048)
    best = Best(vector, 2)
    best.offer(np.array([1, 2]), np.concatenate([vector, -vector]) * np.float32(1.0001))
    np.testing.assert_array_equal(best.found().scores, [[1, -1]])
