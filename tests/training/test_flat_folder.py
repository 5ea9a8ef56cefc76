"""A user's flat folder of 20 odd photographs: every command trains, and says what it did with each of them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.dataset import Dataset
from training.run.log import read_log

ROOT = Path(__file__).parents[2]
SIZE = 32


def landscape(number: int, width: int, height: int) -> Image.Image:
    """A sky over ground, lit from a side, with grain: what a photograph looks like from far away."""
    rng = np.random.default_rng(number)
    down, along = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None]
    horizon = rng.uniform(0.3, 0.7)
    sky, ground = rng.uniform(90, 255, 3), rng.uniform(20, 160, 3)
    scene = np.where(
        (down < horizon)[..., None], sky * (1 - 0.4 * down[..., None]), ground * (0.6 + 0.4 * along[..., None])
    )
    return Image.fromarray(np.clip(scene + rng.normal(0, 8, scene.shape), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 image files of many sizes and modes, three of them broken, among other files; no sub-folders."""
    folder = tmp_path_factory.mktemp("My photographs")
    for number in range(11):
        image = landscape(number, 60 + 17 * number, 150 - 9 * number)
        (folder / f"IMG {number:04d}.JPG").write_bytes(jpeg(image, quality=90))
    landscape(11, 64, 48).convert("RGBA").save(folder / "sticker.png")
    landscape(12, 50, 50).quantize(16).save(folder / "drawing.gif")
    landscape(13, 90, 40).convert("L").save(folder / "grey.tiff")
    (folder / "print.jpeg").write_bytes(jpeg(landscape(14, 80, 80).convert("CMYK")))
    turned = Image.Exif()
    turned[0x0112] = 6
    (folder / "upright — später.jpg").write_bytes(jpeg(landscape(15, 120, 70), exif=turned))
    landscape(16, 400, 30).save(folder / "panorama.webp")
    landscape(17, 5, 3).save(folder / "speck.bmp")
    (folder / "cut short.jpg").write_bytes(jpeg(landscape(18, 200, 200))[:1500])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("where I took them")
    (folder / "IMG_0099.HEIC").write_bytes(b"\0\0\0\x24ftypheic")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def command(*words: str) -> tuple[str, str]:
    """Run `simclr` as a user would; its stdout and stderr."""
    full = [sys.executable, "-m", "cli", *words]
    done = subprocess.run(full, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def prepared(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The data folder, and what the command printed and told."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    return out, *command("prepare", "--images", str(photographs), "--out", str(out), "--max-size", str(SIZE))


@pytest.fixture(scope="module")
def trained(prepared: tuple[Path, str, str]) -> tuple[Path, str]:
    """The run's folder, and what the command told."""
    out = prepared[0].with_name("run")
    small = ("--architecture", "resnet18", "--epochs", "2")
    data = str(prepared[0])
    printed, told = command("pretrain", "--data", data, "--out", str(out), "--preset", "quickstart", *small)
    assert printed.startswith(f"The encoder is in {out / 'checkpoint.safetensors'}: ")
    return out, told


def test_preparing_says_what_was_left_out_and_why(prepared: tuple[Path, str, str]) -> None:
    out, printed, told = prepared
    assert "18 images of 32x32 (14 train, 2 validation, 2 test), no labels" in printed
    assert "can't be read and are left out: 3; the first:" in told
    assert "cut short.jpg: " in told
    assert "empty.png: the image is empty (0 bytes)" in told
    assert "left out: 2 (1 .txt, 1 hidden)" in told
    facts = json.loads((out / "dataset.json").read_text())
    assert {item["path"] for item in facts["unreadable"]} == {"IMG_0099.HEIC", "cut short.jpg", "empty.png"}


def test_every_odd_file_that_can_be_read_has_its_picture(prepared: tuple[Path, str, str], photographs: Path) -> None:
    data = Dataset.load(prepared[0])
    assert len(data.ids) == len(set(data.ids)) == 18
    upright = data.images[data.ids.index("upright — später.jpg")].astype(int)
    as_stored = data.images[data.ids.index("IMG 0004.JPG")].astype(int)
    assert abs(upright[:, :8].mean() - upright[:, -8:].mean()) > abs(upright[:8].mean() - upright[-8:].mean())
    assert abs(as_stored[:, :8].mean() - as_stored[:, -8:].mean()) < abs(as_stored[:8].mean() - as_stored[-8:].mean())
    assert all(data.read_item(item) == (photographs / item).read_bytes() for item in data.ids)


def test_the_second_time_says_it_again(prepared: tuple[Path, str, str], photographs: Path) -> None:
    again = command("prepare", "--images", str(photographs), "--out", str(prepared[0]), "--max-size", str(SIZE))
    assert again[0] == prepared[1]
    assert "reusing it" in again[1]
    assert "cut short.jpg" in again[1]


def test_training_says_that_the_batch_was_reduced(trained: tuple[Path, str]) -> None:
    out, told = trained
    assert "the batch of 128 is reduced to the 16 training images" in told
    losses = [entry["loss"] for entry in read_log(out / "log.jsonl")]
    assert len(losses) >= 1
    assert np.isfinite(losses).all()


def test_evaluation_says_that_there_are_no_labels(prepared: tuple[Path, str, str], trained: tuple[Path, str]) -> None:
    out = trained[0].with_name("evaluation")
    checkpoint = str(trained[0] / "checkpoint.safetensors")
    printed, told = command("evaluate", "--data", str(prepared[0]), "--checkpoint", checkpoint, "--out", str(out))
    assert "no labels" in printed + told
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["linear_probe"] is None
    assert metrics["knn"] is None
    assert all(np.isfinite(value) for value in metrics["signals"].values())


def test_the_preset_for_photographs_takes_its_first_steps(prepared: tuple[Path, str, str]) -> None:
    small = ("--preset", "folder224", "--architecture", "resnet18", "--epochs", "1")
    out = str(prepared[0].with_name("folder224"))
    told = command("pretrain", "--data", str(prepared[0]), "--out", out, *small)[1]
    assert "reduced to the 16 training images" in told
    assert "warm-up" in told
