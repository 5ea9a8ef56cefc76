"""The benchmark of training: both comparisons by their commands, resuming, and what may go wrong."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training.scores import choose_rows
from tests.benchmarks.conftest import TINY, last_line, run
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare


@pytest.fixture(scope="session")
def data(archive: Path) -> Dataset:
    """The images at 16 px."""
    return prepare(archive, archive.with_name("data"), request=Request(image_size=16))


def test_recipes_are_compared_and_a_second_start_reuses_what_there_is(data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    command = ("--data", str(data.folder), "--minutes", "0.03", "--out", str(out), *TINY)
    broken = run("benchmarks.training.training", *command, "--peer-batch", "1000")
    assert broken.returncode == 1
    assert "error: peer-batch is 1000; accepted: 2 to the 160 training images" in broken.stderr
    assert not (out / "request.json").exists()
    first = run("benchmarks.training.training", *command)
    figures = last_line(first)
    ours = json.loads((out / "ours.json").read_text())
    assert ours["images"] / ours["seconds"] == pytest.approx(ours["images_per_s"])
    assert ours["images"] == 32 * json.loads((out / "plan.json").read_text())["steps"]
    refused = run("benchmarks.training.training", *command, "--peer-batch", "16")
    assert "holds another comparison" in refused.stderr
    assert figures["images_per_s"]["ours"] == pytest.approx(ours["images_per_s"], abs=0.01)
    assert set(figures["images_per_s"]) == {"ours", "lightly"}
    for key in ("linear_accuracy", "knn_accuracy"):
        assert set(figures[key]) == {"ours", "lightly", "random_init", "random_init_ordinary_stem"}
        assert all(0 <= share <= 1 for share in figures[key].values())
    assert figures["seconds"]["lightly"] >= figures["seconds"]["ours"]
    assert 0 < figures["views_share"]["ours"] < 1
    assert 0 < figures["views_share"]["lightly"] < 1
    assert (out / "accuracy.png").stat().st_size > 5_000
    assert "random init ordinary stem" in first.stdout
    assert last_line(run("benchmarks.training.training", *command)) == figures


def test_equal_settings_give_two_speeds(data: Dataset, tmp_path: Path) -> None:
    settings = ("--equal", "--equal-seconds", "0.2", "--repeat", "2", "--out", str(tmp_path), *TINY)
    figures = last_line(run("benchmarks.training.training", "--data", str(data.folder), *settings, "--workers", "0"))
    assert set(figures["images_per_s"]) == {"ours", "lightly"}
    assert [len(turns) for turns in figures["turns"].values()] == [2, 2]
    assert min(figures["turns"]["ours"] + figures["turns"]["lightly"]) > 0


def test_scores_are_on_all_test_images_and_some_of_the_others(data: Dataset) -> None:
    rows = choose_rows(data, 80)
    assert len(rows.train) == 70
    assert len(rows.validation) == 10
    assert np.array_equal(rows.test, data.rows("test"))
    assert set(rows.train) <= set(data.rows("train"))
    everything = choose_rows(data, 0)
    assert len(everything.train) + len(everything.validation) == 160


def test_images_without_labels_are_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(tmp_path / "flat.zip", "w") as target:
        for name in source.namelist()[:8]:
            target.writestr(name.replace("/", "-"), source.read(name))
    unlabelled = prepare(tmp_path / "flat.zip", tmp_path / "data", request=Request(image_size=8))
    with pytest.raises(ValueError, match="has no labels"):
        choose_rows(unlabelled, 0)
