"""Whole runs: that they learn, what they leave behind, what they refuse, and how they stop when they diverge."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.command_line.command import main
from tests.training.conftest import write_images
from training.data.dataset import Dataset
from training.data.downloads import materialise
from training.data.prepare import Request, prepare
from training.errors import NonFiniteLoss
from training.model.nt_xent import loss_floor, nt_xent
from training.model.views import views_generator
from training.recipe.config import PretrainConfig
from training.run import step as steps
from training.run.batches import Batches
from training.run.checkpoint import CheckpointError, load_encoder, read_metadata
from training.run.command import COMMAND
from training.run.log import read_log
from training.run.options import RunOptions
from training.run.pretrain import pretrain
from training.run.run import training_rows

Tiny = Callable[..., PretrainConfig]


def test_a_finished_run_returns_at_once_and_another_is_refused(
    coloured: Dataset, tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    path = pretrain(coloured, tmp_path, tiny(epochs=2))
    assert (tmp_path / "loss.png").exists()
    written = path.stat().st_mtime_ns
    with caplog.at_level("INFO"):
        pretrain(coloured, tmp_path, tiny(epochs=2))
    assert "already finished" in caplog.text
    assert path.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match=r"optimiser.lr was 0.06, now 0.1; epochs was 2, now 3.*--fresh"):
        pretrain(coloured, tmp_path, tiny(epochs=3, optimiser__lr=0.1))
    pretrain(coloured, tmp_path, tiny(epochs=3, optimiser__lr=0.1), RunOptions(fresh=True))
    assert read_metadata(path)["step"] == 3 * 5
    impossible = tiny(epochs=3, precision="bf16")  # views of 1x1 before the last strided convolution
    with pytest.raises(ValueError, match="precision is 'bf16'"):
        pretrain(coloured, tmp_path, impossible, RunOptions(device="cpu", fresh=True))
    assert path.exists()


def test_other_images_in_the_same_run_are_refused(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    pretrain(coloured, tmp_path / "run", tiny(epochs=2))
    write_images(tmp_path / "images", [f"{number}.png" for number in range(96)], seed=9)
    other = prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
    with pytest.raises(CheckpointError, match="a run on other images"):
        pretrain(other, tmp_path / "run", tiny(epochs=2))


def test_a_run_learns(tmp_path: Path, tiny: Tiny) -> None:
    """On scikit-learn's digits the loss of a small run falls well below that of guessing, log(2N - 1)."""
    digits = prepare(materialise("digits", tmp_path), tmp_path / "data")
    schedule = {"batch_size": 64, "epochs": 3, "temperature": 0.2, "views__flip_p": 0.0, "views__crop_min": 0.5}
    encoder = {"encoder__stem": "small", "head__hidden": 256, "head__out": 64}
    lars = {"optimiser__name": "lars", "optimiser__lr": 1.0, "optimiser__weight_decay": 1e-4}
    pretrain(digits, tmp_path / "run", tiny(**schedule, **encoder, **lars))
    losses = [entry["loss"] for entry in read_log(tmp_path / "run/log.jsonl")]
    assert losses[-1] < np.log(2 * 64 - 1) - 0.8
    assert losses[-1] < losses[len(losses) // 2] < losses[0]


def test_a_run_reads_back(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    path = pretrain(coloured, tmp_path, tiny(epochs=2))
    log = read_log(tmp_path / "log.jsonl")
    numbers = {"step", "epoch", "loss", "floor", "lr", "view_size", "images_per_s", "seconds", "eta_seconds"}
    assert numbers <= set(log[0])
    assert log[0]["loss"] > log[0]["floor"] == pytest.approx(loss_floor(16, 2, 0.5))
    assert log[-1]["eta_seconds"] == 0
    assert {"alignment", "uniformity", "spread", "rankme"} <= set(log[-1])
    loaded = load_encoder(path)
    assert loaded.encoder.frozen
    assert loaded.config.encoder.image_size == 8
    assert loaded.metadata["dataset"]["digest"] == coloured.digest
    pixels = coloured.images[coloured.rows("train", "validation")] / 255
    assert loaded.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert loaded.std == pytest.approx(pixels.std(axis=(0, 1, 2)))


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty", "absent"])
def test_a_bad_checkpoint_is_named(coloured: Dataset, tmp_path: Path, tiny: Tiny, damage: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    if damage == "cut":
        pretrain(coloured, tmp_path, tiny(epochs=2))
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage != "absent":
        path.write_bytes(b"" if damage == "empty" else b"\x80\x04pickle, perhaps")
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        load_encoder(path)


def test_divergence_stops_with_a_diagnosis(
    coloured: Dataset, tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = nt_xent
    calls = []

    def poisoned(z: torch.Tensor, temperature: float, *, decoupled: bool) -> torch.Tensor:
        calls.append(1)
        return loss(z, temperature, decoupled=decoupled) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(steps, "nt_xent", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"the loss is nan at step 3 of 20 \(lr 0.048, gradient norm nan.*--lr"):
        pretrain(coloured, tmp_path, tiny())
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_twenty_photographs_train_in_a_batch_of_their_number(
    tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "images", [f"{number}.png" for number in range(20)])
    (tmp_path / "images/7.png").write_bytes(b"corrupt")
    dataset = prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
    path = pretrain(dataset, tmp_path / "run", tiny(batch_size=256, epochs=2))
    assert "the batch of 256 is reduced to the 17 training images" in caplog.text
    assert read_metadata(path)["config"]["batch_size"] == 17


def test_one_image_is_too_few(tmp_path: Path, tiny: Tiny) -> None:
    write_images(tmp_path / "images", ["a.png"])
    dataset = prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
    with pytest.raises(ValueError, match="has 1 training images; at least 2 are needed"):
        pretrain(dataset, tmp_path / "run", tiny())


@pytest.mark.parametrize("changes", [{"optimiser__name": "lars"}, {"head__kind": "none"}, {"head__kind": "linear"}])
def test_other_parts(coloured: Dataset, tmp_path: Path, tiny: Tiny, changes: dict[str, object]) -> None:
    pretrain(coloured, tmp_path, tiny(epochs=2, **changes))
    assert np.isfinite(read_log(tmp_path / "log.jsonl")[-1]["loss"])


def test_bf16_autocast_trains_on_real_images(cifar: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    pretrain(cifar, tmp_path, tiny(epochs=2, batch_size=64, precision="bf16"))
    assert np.isfinite(read_log(tmp_path / "log.jsonl")[-1]["loss"])


def test_batches_cover_an_epoch_without_repeats_and_never_the_test_images(coloured: Dataset) -> None:
    rows = training_rows(coloured)
    batches = Batches(coloured.images, rows, batch_size=16, seed=1, device=torch.device("cpu"))
    seen = np.concatenate([batches.positions(step) for step in range(batches.steps_per_epoch)])
    assert len(set(seen.tolist())) == len(seen) == 16 * (len(rows) // 16)
    assert not set(rows[seen]) & set(coloured.rows("test"))
    later = batches.positions(batches.steps_per_epoch)
    assert not np.array_equal(later, seen[:16])
    alone = Batches(coloured.images, rows, batch_size=16, seed=1, device=torch.device("cpu"))
    assert np.array_equal(alone.positions(batches.steps_per_epoch), later)
    assert np.array_equal(batches(0).numpy(), coloured.images[rows[seen[:16]]])
    assert views_generator(0, 1).initial_seed() != views_generator(1, 0).initial_seed()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "crop=1"], "error: unknown key 'crop'"),
        (["--device", "cuda:99", "--epochs", "1"], "error: device is 'cuda:99'"),
        (["--data", "/nowhere"], "error: /nowhere is no data folder"),
    ],
)
def test_command_errors_are_one_line(
    coloured: Dataset, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND, ["--data", str(coloured.folder), "--out", str(tmp_path), *words]) == 1
    [told] = capsys.readouterr().err.splitlines()
    assert told.startswith(message)
