"""How deep a base is searched: chosen by the worst sort of query, again without building, and on real queries."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.commands.compact import INDEX_KINDS
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import KINDS, Plan
from serving.collection.index.faiss.trial import asked_file, keep_asked, kept_asked, trial_queries
from serving.collection.index.faiss.tuning import tune
from tests.serving.collection.examples import (
    RELEASE,
    ROOT,
    brute_force,
    clustered_vectors,
    fill,
    items,
    stored,
    unit_vectors,
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return open_catalogue(tmp_path, create=True)


def bursts(subjects: int, pictures: int, dim: int = 48) -> Vectors:
    """Pictures of the same subjects, nearly alike."""
    random = np.random.default_rng(4)
    vectors = np.repeat(unit_vectors(subjects, dim), pictures, axis=0)
    vectors += random.normal(scale=0.3 / dim**0.5, size=vectors.shape).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def recall(neighbours: FaissIndex, queries: Vectors, depth: int | None = None) -> float:
    truth = neighbours.search(queries, 10, exact=True).scores[:, -1:]
    return float((neighbours.search(queries, 10, depth=depth).scores >= truth).mean())


def run(*options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "serving.collection.commands.compact", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_has_siblings_in_the_base_does_not_decide_how_deep_it_is_searched(catalogue: Catalogue) -> None:
    fill(catalogue, bursts(200, 20))
    compact(catalogue, RELEASE, Plan(kind="ivf", recall_target=0.9))
    base = catalogue.bases.get(RELEASE)
    assert base is not None
    by_sort = base.facts["recall_by_sort"]
    assert set(by_sort) == {"held out", "between", "aside"}
    assert by_sort["held out"] > 0.99  # its own subject is all that it has to find
    assert base.facts["depth"] > 1  # which would do for the siblings
    assert base.recall == pytest.approx(min(by_sort.values()), abs=1e-4)
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=10)
    new = unit_vectors(60, 48, seed=9)
    assert recall(neighbours, new) > recall(neighbours, new, depth=1) + 0.1


def test_trial_queries_are_of_unit_norm_and_unlike_what_they_are_made_of() -> None:
    held, random = clustered_vectors(900), np.random.default_rng(0)
    sorts = trial_queries(held, asked=unit_vectors(1000), random=random)
    assert {name: len(queries) for name, queries in sorts.items()} == {"between": 400, "aside": 400, "asked": 400}
    for queries in sorts.values():
        np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
        assert (brute_force(np.arange(900), held, queries, 1).scores < 0.99999).all()
    few = trial_queries(held[:2], asked=None, random=random)
    assert {name: queries.shape for name, queries in few.items()} == {"between": (2, 16), "aside": (2, 16)}
    np.testing.assert_allclose(few["between"][0], few["between"][1], atol=1e-6)


def test_a_base_is_tuned_while_it_is_searched_and_stays_the_same_file(catalogue: Catalogue) -> None:
    vectors = clustered_vectors(1550)
    fill(catalogue, vectors[:1500])
    compact(catalogue, RELEASE, Plan(kind="ivf", recall_target=0.2))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=10)
    before = neighbours.base
    assert before is not None
    queries = vectors[1500:]
    low = recall(neighbours, queries)
    assert tune(catalogue, RELEASE, Plan(recall_target=0.99))
    high = recall(neighbours, queries)
    after = neighbours.base
    assert after is not None
    assert (after.file, after.kind, after.count) == (before.file, "ivf", 1500)
    assert after.facts["depth"] > before.facts["depth"]
    assert after.facts["seconds"] == before.facts["seconds"]
    assert high > max(low, 0.95)
    catalogue.upsert(items(["late"]), unit_vectors(1), RELEASE)
    assert neighbours.search(unit_vectors(1), 1).rows.tolist() == [[1501]]


def test_an_exact_base_has_no_depth_and_no_base_can_t_be_tuned(catalogue: Catalogue) -> None:
    fill(catalogue, clustered_vectors(150))
    with pytest.raises(CompactionError, match="has no base of release"):
        tune(catalogue, RELEASE, Plan())
    compact(catalogue, RELEASE, Plan(kind="exact"))
    before = catalogue.bases.get(RELEASE)
    assert tune(catalogue, RELEASE, Plan())
    assert catalogue.bases.get(RELEASE) == before


def test_the_command_knows_every_kind_of_index() -> None:
    assert ("auto", *KINDS) == INDEX_KINDS


def test_real_queries_are_kept_and_measured_at_every_build(catalogue: Catalogue, tmp_path: Path) -> None:
    fill(catalogue, clustered_vectors(1200))
    queries = tmp_path / "queries.npy"
    np.save(queries, unit_vectors(80, seed=8))
    command = ["--collection", tmp_path, "--kind", "hnsw"]
    done = run(*command, "--queries", queries)
    assert done.returncode == 0, done.stderr
    assert "hnsw of 1200, recall@10" in done.stdout
    assert "asked" in done.stdout
    done = run(*command, "--depth-only")
    assert "asked" in done.stdout
    assert "held out" not in done.stdout
    compact(catalogue, RELEASE, Plan(kind="hnsw"))
    base = catalogue.bases.get(RELEASE)
    assert base is not None
    assert "asked" in base.facts["recall_by_sort"]
    np.testing.assert_array_equal(kept_asked(tmp_path, RELEASE, 16), np.load(queries))
    np.save(queries, unit_vectors(3, 8))
    done = run(*command, "--queries", queries)
    assert (done.returncode, done.stderr) == (1, "error: queries have the shape (3, 8); it must be (N, 16)\n")


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        (np.ones((2, 4), np.float32), "a query has norm 2.0; it must be 1"),
        (np.full((2, 4), np.nan, np.float32), "a query has norm nan"),
        (np.ones((2, 4), np.uint8), "queries are uint8"),
        (np.ones((0, 4), np.float32), r"of shape \(0, 4\)"),
    ],
)
def test_queries_that_are_no_embeddings_are_not_kept(tmp_path: Path, queries: Vectors, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        keep_asked(tmp_path, RELEASE, queries)
    assert kept_asked(tmp_path, RELEASE, 4) is None


def test_a_damaged_file_of_queries_is_named_before_anything_is_built(catalogue: Catalogue) -> None:
    fill(catalogue, clustered_vectors(300))
    asked_file(catalogue.folder, RELEASE).write_bytes(b"torn")
    with pytest.raises(CompactionError, match=r"asked.npy can't be read as an array: remove it"):
        compact(catalogue, RELEASE, Plan(kind="hnsw"))
    assert catalogue.bases.get(RELEASE) is None
    assert len(stored(catalogue)[0]) == 300
