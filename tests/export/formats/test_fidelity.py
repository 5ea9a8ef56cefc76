"""The figures of fidelity against ones worked out by hand, and the verdicts by their bounds."""

import numpy as np
import pytest

from export.formats.fidelity import FidelityBounds, RetrievalSet, compare, judge, neighbours_same
from export.formats.real_images import RealImages
from serving.inference.backends import Outputs

SIZE = 4


def unit(vectors: np.ndarray) -> np.ndarray:
    norms: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / norms, np.float32)


def pictures(count: int) -> np.ndarray:
    return np.zeros((count, SIZE, SIZE, 3), np.uint8)


def labelled(queries: int, gallery: int) -> RealImages:
    return RealImages(pictures(1), pictures(gallery), pictures(queries), np.arange(gallery) % 3, np.arange(queries) % 3)


@pytest.fixture
def exact() -> RetrievalSet:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(30, 3)).astype(np.float32)
    return RetrievalSet(Outputs(unit(draw.normal(size=(30, 16))), logits), unit(draw.normal(size=(200, 16))))


def disturbed(exact: RetrievalSet, by: float) -> RetrievalSet:
    draw = np.random.default_rng(1)
    queries, gallery = (
        unit(vectors + by * draw.normal(size=vectors.shape)) for vectors in (exact.queries.embedding, exact.gallery)
    )
    return RetrievalSet(Outputs(queries, exact.queries.logits), gallery)


def test_the_same_neighbours_are_counted_as_sets_by_brute_force(exact: RetrievalSet) -> None:
    found = disturbed(exact, 0.1)
    shared = []
    for number in range(30):
        first = np.argsort(-(exact.gallery @ exact.queries.embedding[number]))[:10]
        second = np.argsort(-(found.gallery @ found.queries.embedding[number]))[:10]
        shared.append(len(set(first) & set(second)) / 10)
    assert 0 < np.mean(shared) < 1
    assert neighbours_same(exact, found) == pytest.approx(np.mean(shared))


def test_a_gallery_smaller_than_ten_is_compared_whole(exact: RetrievalSet) -> None:
    few = RetrievalSet(exact.queries, exact.gallery[:4])
    assert neighbours_same(few, disturbed(few, 0.5)) == 1


def test_a_file_that_is_equal_is_within_every_bound(exact: RetrievalSet) -> None:
    verdict = judge(exact, exact, labelled(30, 200))
    assert verdict.passed
    assert verdict.figures["cosine_least"] == pytest.approx(1)
    assert verdict.figures["knn_points_lost"] == verdict.figures["probe_points_lost"] == 0


def test_each_missed_bound_is_named_with_its_value(exact: RetrievalSet) -> None:
    found = disturbed(exact, 0.2)
    verdict = judge(exact, found, labelled(30, 200))
    assert not verdict.passed
    said = " ".join(verdict.failed)
    for name in ("cosine_mean", "cosine_least", "neighbours_same"):
        assert f"{name} is {verdict.figures[name]:.5f}, below" in said


def test_points_lost_are_what_accuracy_lost_in_points(exact: RetrievalSet) -> None:
    logits = exact.queries.logits
    assert logits is not None
    right = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    before = RetrievalSet(Outputs(exact.queries.embedding, right), exact.gallery)
    wrong = right.copy()
    wrong[0] = right[1]
    after = RetrievalSet(Outputs(exact.queries.embedding, wrong), exact.gallery)
    verdict = judge(before, after, labelled(30, 200))
    assert verdict.figures["probe_points_lost"] == pytest.approx(100 / 30)
    assert verdict.failed == ("probe_points_lost is 3.33333, above 0.5",)
    assert judge(after, before, labelled(30, 200)).passed  # better is no loss


def test_without_labels_there_is_no_accuracy(exact: RetrievalSet) -> None:
    images = RealImages(pictures(1), pictures(200), pictures(30))
    assert not [name for name in compare(exact, exact, images) if name.startswith(("knn", "probe"))]


def test_not_a_number_never_passes(exact: RetrievalSet) -> None:
    broken = RetrievalSet(Outputs(np.full_like(exact.queries.embedding, np.nan), None), exact.gallery)
    images = RealImages(pictures(1), pictures(200), pictures(30))
    assert len(judge(exact, broken, images, FidelityBounds(neighbours_same=0)).failed) >= 2
