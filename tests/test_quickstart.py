"""`scripts/quickstart --once --images` as a user runs it: ResNet-50 and TorchServe, on a few real images."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import cifar10_files, write_files

ROOT = Path(__file__).parents[1]
STAGES = ("images", "pretrain", "evaluate", "export", "collection", "promote", "serve", "ask")


@pytest.fixture
def name() -> Iterator[str]:
    """A run of its own, removed afterwards; what a test left that was cut off, before."""
    own = "test-quickstart"
    remove(own)
    yield own
    remove(own)


def remove(name: str) -> None:
    for left in (ROOT / "runs" / name, ROOT / "model_store" / name):
        shutil.rmtree(left, ignore_errors=True)
    for archive in (ROOT / "model_store").glob(f"{name}-*.mar"):
        archive.unlink()


def quickstart(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.quickstart", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_flat_folder_then_the_same_again(tmp_path: Path, name: str) -> None:
    files = {path.replace("/", "-"): data for path, data in cifar10_files(per_label={"train": 6}).items()}
    files["broken.jpg"] = next(iter(files.values()))[:200]
    images = write_files(tmp_path / "photographs", files)
    arguments = ["--once", "--images", str(images), "--name", name, "--epochs", "2", "--port", "0"]

    first = quickstart(*arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "broken.jpg" in first.stdout + first.stderr
    assert "prediction" not in first.stdout
    assert first.stdout.count("neighbours") == 6
    assert "2048 numbers" in first.stdout
    assert (ROOT / "runs" / name / "contact_sheet.png").stat().st_size > 10_000
    typed = [line for line in first.stdout.splitlines() if line.startswith("$ ")]
    assert [line.split()[1:3] for line in typed] == [
        *(["simclr", command] for command in ("prepare", "pretrain", "evaluate", "export", "ingest", "releases"))
    ]
    assert f"simclr serve --store model_store --name {name} --collection runs/{name}/collection" in first.stdout

    second = quickstart(*arguments)
    assert second.returncode == 0, second.stdout + second.stderr
    seconds = json.loads((ROOT / "runs" / name / "seconds.json").read_text())
    assert "0 embedded, 60 unchanged" in second.stdout
    assert set(seconds) == {*STAGES, "total"}
    assert [path.name for path in (ROOT / "model_store").glob(f"{name}-*.mar")] == [f"{name}-1.mar"]


def test_labelled_images_from_a_zip_named_relative_to_the_caller(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = cifar10_files(per_label={"train": 8, "test": 1})
    with zipfile.ZipFile(tmp_path / "some pictures.zip", "w") as archive:
        for path, data in files.items():
            archive.writestr(f"cifar10/{path}", data)
    monkeypatch.setenv("QUICKSTART_CALLER", str(tmp_path))
    quick = ("--once", "--no-int8", "--port", "0")
    arguments = [*quick, "--images", "some pictures.zip", "--name", name, "--epochs"]

    done = quickstart(*arguments, "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("prediction") == 6
    assert "this encoder" in done.stdout
    assert "raw pixels" in done.stdout

    other = quickstart(*arguments, "2")
    assert other.returncode != 0
    assert "--fresh" in other.stderr


@pytest.mark.parametrize("bad", ["..", "a/b", ".", "фото"])
def test_a_name_that_would_leave_the_folder_is_refused(bad: str) -> None:
    done = quickstart("--fresh", "--once", "--name", bad)
    assert done.returncode == 2
    assert "name is" in done.stderr


def test_missing_images_are_reported_before_anything_is_done(tmp_path: Path, name: str) -> None:
    done = quickstart("--once", "--images", str(tmp_path / "nowhere"), "--name", name)
    assert done.returncode == 2
    assert "nowhere does not exist" in done.stderr


def test_a_failed_stage_stops_with_its_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    done = quickstart("--once", "--images", str(tmp_path), "--name", name)
    assert done.returncode == 1
    assert "holds no image files" in done.stderr
    assert "[2/8]" not in done.stdout
