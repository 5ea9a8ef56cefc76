"""The benchmarks of a collection: their commands on little data, and the parts that their figures rest on."""

import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search.measure import Point, cheapest, recall_of
from benchmarks.search.parties import truth_of
from benchmarks.tools.embeddings import grown, load_embeddings, nearest
from benchmarks.tools.filled import RELEASE, fill
from benchmarks.tools.vectors import brute_force, unit_vectors
from serving.collection.catalogue.opening import open_catalogue
from tests.benchmarks.conftest import last_line, run
from tests.benchmarks.embedded import write_embeddings
from tests.serving.collection.examples import clustered_vectors


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("embedded") / "out", stored=1500, queries=60)


def test_the_command_compares_all_and_keeps_the_collections(embedded: Path, tmp_path: Path) -> None:
    few = ("--small", "1000", "--large", "3000", "--rounds", "1", "--queries", "50", "--threads", "1", "--no-http")
    peers = ("--peers", "usearch", "qdrant")
    done = run("benchmarks.search.search", "--embeddings", str(embedded), "--work", str(tmp_path), *few, *peers)
    figures = last_line(done)
    assert figures["recall_at_10"] >= 0.9
    assert figures["sizes"] == [1000, 3000]
    assert figures["first_search_s_1m"] is None  # it was not a million
    assert {point["party"] for point in figures["points"]["1000"]} == {
        *("ours", "bare faiss", "usearch i8", "qdrant local")
    }
    one, two = figures["memory"]["1"], figures["memory"]["2"]
    assert (len(one), len(two)) == (1, 2)
    assert two[0]["pss_index"] < 0.75 * one[0]["pss_index"]  # a copy for both
    assert "process start to first search at 3,000" in done.stdout
    assert open_catalogue(tmp_path / "c3000").bases.get(RELEASE) is not None


def test_the_quick_run_has_every_figure_but_those_of_a_million(tmp_path: Path) -> None:
    embeddings = write_embeddings(tmp_path / "out", stored=5000, queries=100, dim=64)
    began = time.monotonic()
    figures = last_line(run("benchmarks.search.search", "--embeddings", str(embeddings), "--quick"))
    assert time.monotonic() - began < 120  # room for a busy machine: it takes under 20 s of CPU time
    assert figures["sizes"] == [5_000, 15_000]
    assert figures["recall_at_10"] >= 0.95
    assert figures["ratios"]["server_vs_bare_faiss"] > 0
    assert figures["ratios"]["memory_vs_paper"] > 1
    assert figures["time_large_vs_small"] > 0
    assert figures["ratios"]["time_1m_vs_50k"] is figures["first_search_s_1m"] is figures["http"] is None
    assert set(figures["recall_at_built_depth"]) == {"5000", "15000"}


def test_grown_vectors_are_new_of_unit_norm_and_near_two_real_ones() -> None:
    real = clustered_vectors(500)
    near = nearest(real)
    vectors = np.concatenate([*grown(real, 2000, near=near)])
    np.testing.assert_array_equal(vectors[:500], real)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(np.unique(vectors, axis=0)) == 2000
    of_real = brute_force(np.arange(500), real, real, 11).scores[:, 10].mean()
    assert brute_force(np.arange(500), real, vectors[500:], 2).scores[:, 1].mean() > of_real
    assert len(np.concatenate([*grown(real, 100, near=near)])) == 100


def test_the_nearest_are_others() -> None:
    real = clustered_vectors(400)
    near = nearest(real, 5)
    assert (near != np.arange(400)[:, None]).all()
    assert recall_of(near, brute_force(np.arange(400), real, real, 6).rows[:, 1:]) > 0.95


def test_truth_is_brute_force_however_the_vectors_come_in_parts() -> None:
    vectors, queries = unit_vectors(700), unit_vectors(9, seed=3)
    parts = [vectors[:3], vectors[3:400], vectors[400:]]
    expected = brute_force(np.arange(700), vectors, queries, 10).rows
    np.testing.assert_array_equal(truth_of(queries, parts, 10), expected)


def test_queries_are_of_test_images_or_else_drawn(embedded: Path, tmp_path: Path) -> None:
    found = load_embeddings(embedded, queries=1000)
    assert (len(found.stored), len(found.queries)) == (1500, 60)
    with pytest.raises(ValueError, match="has no shard-"):
        load_embeddings(tmp_path)


def test_filling_goes_on_where_it_was_left_off(tmp_path: Path) -> None:
    vectors = unit_vectors(2500)
    fill(tmp_path, [vectors[:1300]], count=1300)
    catalogue = fill(tmp_path, [vectors[:1300], vectors[1300:]], count=2500)
    rows = catalogue.vectors.census(RELEASE).rows
    assert rows.tolist() == [*range(1, 2501)]
    np.testing.assert_array_equal(catalogue.vectors.at(rows, RELEASE)[1], vectors)


def test_the_cheapest_point_has_the_recall_asked_for() -> None:
    points = [Point("a", 1, depth, recall, us, None) for depth, recall, us in ((8, 0.9, 5), (16, 0.96, 7), (32, 1, 9))]
    assert cheapest(points, "a", 1, 0.95) == points[1]
    assert cheapest(points, "a", 2, 0.95) is None
    assert recall_of(np.array([[1, 2], [3, 9]]), np.array([[2, 1], [3, 4]])) == 0.75


def test_churn_replaces_everything_and_opens_again(embedded: Path) -> None:
    done = run(
        "benchmarks.search.churn", "--embeddings", str(embedded), "--count", "1200", "--turns", "2", "--queries", "40"
    )
    figures = last_line(done)
    assert figures["recall_least"] >= 0.9
    assert figures["compactions"] >= 2
    assert len(figures["memory_mb"]) == len(figures["disk_mb"]) == 4


def test_ingest_measures_batches_and_searches_meanwhile(embedded: Path) -> None:
    figures = last_line(
        run(
            "benchmarks.search.ingest",
            "--embeddings",
            str(embedded),
            "--base",
            "1000",
            "--seconds",
            "0.4",
            "--rounds",
            "1",
        )
    )
    assert set(figures["upserts_per_s"]) == {"1", "10", "100", "1000"}
    assert set(figures["search_ms"]) == {"alone", "while writing", "writing and compacting"}
    assert figures["search_ms"]["while writing"]["largest_delta"] > 0
