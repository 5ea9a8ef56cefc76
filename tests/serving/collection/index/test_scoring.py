import faiss
import numpy as np
import pytest

from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.scoring import Best, exact_scores
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


def test_each_query_is_offered_candidates_of_its_own() -> None:
    matrix, queries = with_duplicates(2000, 600), unit_vectors(30, 8, seed=2)
    random = np.random.default_rng(0)
    rows = random.permutation(2000).astype(np.int64) + 7
    positions = np.stack([random.choice(2000, 500, replace=False) for _ in queries])
    best = Best(queries, 20)
    best.offer_at(positions[:, :100], rows, matrix)
    best.offer_at(positions[10:, 100:], rows, matrix, only=np.arange(10, 30))
    best.offer_at(positions[:10, 100:], rows, matrix, only=np.arange(10))
    found = best.found()
    for query, chosen in enumerate(positions):
        expected = brute_force(rows[chosen], matrix[chosen], queries[query : query + 1], 20)
        np.testing.assert_array_equal(found.rows[query], expected.rows[0])
        np.testing.assert_allclose(found.scores[query], expected.scores[0], atol=2e-7)


def test_a_position_of_minus_one_is_no_candidate() -> None:
    matrix, queries = unit_vectors(20, 8), unit_vectors(2, 8, seed=2)
    best = Best(queries, 3)
    best.offer_at(np.array([[5, -1, 6, 0], [-1, -1, -1, 19]]), np.arange(20), matrix)
    expected = brute_force(np.array([0, 5, 6]), matrix[[0, 5, 6]], queries[:1], 3)
    np.testing.assert_allclose(best.scores()[0], expected.scores[0], atol=2e-7)
    assert np.isinf(best.scores()[1]).tolist() == [False, True, True]
    with pytest.raises(AssertionError, match="fewer than k"):
        best.found()


def test_scores_never_leave_their_range() -> None:
    vector = unit_vectors(1, 2048)
    best = Best(vector, 2)
    best.offer(np.array([1, 2]), np.concatenate([vector, -vector]) * np.float32(1.0001))
    np.testing.assert_array_equal(best.found().scores, [[1, -1]])


def test_a_score_is_near_the_exact_one_and_the_same_wherever_its_pair_is() -> None:
    vectors, queries = unit_vectors(500, 2048), unit_vectors(20, 2048, seed=1)
    places = np.random.default_rng(0).integers(500, size=(20, 30))
    scores = exact_scores(queries, vectors, places)
    precise = np.einsum("qd,qcd->qc", queries.astype(np.float64), vectors[places].astype(np.float64))
    np.testing.assert_allclose(scores, precise, rtol=0, atol=1e-6)
    moved = np.empty(500 * 2048 + 1, np.float32)[1:].reshape(500, 2048)
    moved[:] = vectors
    for query, line, at in zip(queries, scores, places, strict=True):
        one_by_one = [exact_scores(query[None], moved, at[place : place + 1][None])[0, 0] for place in range(30)]
        np.testing.assert_array_equal(one_by_one, line)


def test_scoring_leaves_the_number_of_threads_as_it_was() -> None:
    vectors, before = unit_vectors(10, 8), faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        exact_scores(vectors, vectors, np.arange(10)[:, None])
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
