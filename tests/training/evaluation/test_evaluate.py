"""The command as a whole: that it changes nothing, looks at test once, goes on where it was stopped, and tells all."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from core.command_line.command import main
from tests.training.conftest import write_images
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare
from training.evaluation import evaluate as command
from training.evaluation import fine_tune as fine_tuning
from training.evaluation import measurements, subject
from training.evaluation.command import COMMAND
from training.evaluation.evaluate import evaluate
from training.evaluation.finished import VERSION, Finished
from training.evaluation.measurements import Extras
from training.evaluation.representations import raw_pixels
from training.evaluation.subject import Home, Subject
from training.evaluation.tables import in_terminal
from training.measures.chart_files import contact_sheet
from training.measures.embed import embed
from training.measures.probe import load_probe
from training.model.encoder import build_encoder
from training.model.pixels import Normalisation
from training.recipe.config import PretrainConfig, override
from training.run.checkpoint import load_encoder
from training.run.pretrain import pretrain

ROOT = Path(__file__).parents[3]
EVERYTHING = Extras(augmented_passes=1, fine_tune_epochs=1)
CUT_SHORT = """
import os, sys
from core.command_line.command import main
from training.evaluation.command import COMMAND
from training.data.dataset import Dataset

load = Dataset.load

def cut_short(folder):
    data = load(folder)
    os.truncate(folder / "images.npy", 4096)
    return data

Dataset.load = cut_short
sys.exit(main(COMMAND))
"""
BASELINES = {"random encoder", "raw pixels"}


@pytest.fixture(scope="module")
def checkpoint(coloured: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = PretrainConfig()
    changes: dict[str, object] = {
        "encoder.architecture": "resnet18",
        "epochs": 2,
        "optimiser.warmup_epochs": 1,
        "batch_size": 32,
    }
    return pretrain(coloured, tmp_path_factory.mktemp("run"), override(config, changes))


@pytest.fixture(scope="module")
def evaluated(coloured: Dataset, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation with everything in it but transfer; and its encoder is what it was before."""
    out, kept, file = tmp_path_factory.mktemp("evaluated"), load_encoder(checkpoint), checkpoint.read_bytes()
    before = {name: value.clone() for name, value in kept.encoder.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "load_encoder", lambda path: kept)
        evaluate(coloured, checkpoint, out, device="cpu", extras=EVERYTHING)
    after = kept.encoder.state_dict()
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert kept.encoder.frozen
    assert not any(parameter.requires_grad for parameter in kept.encoder.parameters())
    assert checkpoint.read_bytes() == file
    return out


def read(out: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def forbid_work(monkeypatch: pytest.MonkeyPatch, *, but: tuple[str, ...] = ()) -> None:
    """No image is embedded and no task is done, but for those whose names begin as in `but`."""
    real = Finished.once

    def once(self: Finished, task: str, request: dict[str, Any], work: Callable[[], Any], **named: Any) -> Any:
        allowed = task.startswith(but)
        return real(self, task, request, work if allowed else lambda: pytest.fail(f"{task}: done again"), **named)

    monkeypatch.setattr(Finished, "once", once)
    for module in (subject, measurements):
        monkeypatch.setattr(module, "embed_all", lambda *_, **__: pytest.fail("embedded again"))


def test_embeddings_are_unit_norm_independent_of_the_batch_and_need_a_frozen_encoder(
    checkpoint: Path, coloured: Dataset
) -> None:
    loaded = load_encoder(checkpoint)
    normalisation = Normalisation(loaded.mean, loaded.std)
    h = embed(loaded.encoder, coloured.images, normalisation)
    assert h.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embed(loaded.encoder, coloured.images[5:6], normalisation)[0], h[5], atol=1e-5)
    with pytest.raises(ValueError, match="not frozen"):
        embed(build_encoder(loaded.config.encoder), coloured.images, normalisation)


def test_every_figure_has_its_baselines_and_every_file_is_there(
    evaluated: Path, checkpoint: Path, coloured: Dataset
) -> None:
    metrics = read(evaluated)
    assert set(metrics["baselines"]) == BASELINES
    for one in (metrics, *metrics["baselines"].values()):
        assert {"linear_probe", "knn", "few_labels", "augmented_probe", "per_class", "signals"} <= set(one)
        assert set(one["signals"]) == {"alignment", "uniformity", "spread", "rankme"}
        assert set(one["few_labels"]) == {"10%"}  # 1% of 78 images is not one a label
    assert set(metrics["fine_tuning"]) == {"100%", "10%"}
    assert set(metrics["baselines"]["random encoder"]["fine_tuning"]) == {"100%", "10%"}
    assert Image.open(evaluated / "tsne.png").width > 300
    shown = in_terminal(metrics)
    assert shown.startswith(f"{'test accuracy':<18}{'linear probe':>14}")
    assert shown.count("raw pixels") == 3
    loaded = load_encoder(checkpoint)
    probe, test = load_probe(evaluated / "probe.safetensors"), coloured.rows("test")
    h = embed(loaded.encoder, coloured.images[test], Normalisation(loaded.mean, loaded.std))
    predicted = probe.logits(h).argmax(axis=1)
    assert probe.classes == ("blue", "red", "sand")
    assert metrics["linear_probe"]["accuracy"] == pytest.approx(np.mean(predicted == coloured.labels_of(test)))
    assert np.trace(metrics["confusion"]) == np.sum(predicted == coloured.labels_of(test))
    assert metrics["baselines"]["raw pixels"]["linear_probe"]["accuracy"] > 0.9


def test_a_run_from_imagenet_weights_has_them_in_every_table(
    checkpoint: Path, coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file where torchvision would put its download stands in for it; without it there is a caution."""
    loaded = load_encoder(checkpoint)
    config = replace(loaded.config, encoder=replace(loaded.config.encoder, weights="imagenet"))
    monkeypatch.setattr(command, "load_encoder", lambda path: loaded._replace(config=config))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub/checkpoints" / Path(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    metrics = evaluate(coloured, checkpoint, tmp_path / "out", device="cpu", extras=EVERYTHING)
    assert list(metrics["baselines"]) == ["before training", "random encoder", "raw pixels"]
    before = metrics["baselines"]["before training"]
    assert before["augmented_probe"]["accuracy"] > 0.5
    assert before["fine_tuning"]["100%"] != metrics["baselines"]["random encoder"]["fine_tuning"]["100%"]
    assert all("before training" in part for part in in_terminal(metrics).split("\n\n")[:-1])
    assert "before training" in (tmp_path / "out/report.html").read_text()

    file.unlink()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_connection)
    metrics = evaluate(coloured, checkpoint, tmp_path / "offline", device="cpu")
    assert set(metrics["baselines"]) == BASELINES
    assert "can&#39;t be fetched here" in (tmp_path / "offline/report.html").read_text()


def no_connection(*_: Any, **__: Any) -> NoReturn:
    raise urllib.error.URLError("no route to host")


def test_the_labels_of_test_choose_nothing(
    evaluated: Path, checkpoint: Path, coloured: Dataset, tmp_path: Path
) -> None:
    assert coloured.labels is not None
    test, labels = coloured.rows("test"), coloured.labels.copy()
    labels[test] = (labels[test] + 1) % 3
    evaluate(replace(coloured, labels=labels), checkpoint, tmp_path, device="cpu", extras=EVERYTHING)
    true, moved = read(evaluated), read(tmp_path)
    assert moved["linear_probe"]["accuracy"] != true["linear_probe"]["accuracy"]
    fitted, again = (load_probe(out / "probe.safetensors") for out in (evaluated, tmp_path))
    assert np.array_equal(fitted.weight, again.weight)
    assert np.array_equal(fitted.bias, again.bias)

    def choices(figures: Any) -> Any:
        if not isinstance(figures, dict):
            return figures
        reported = ("accuracy", "accuracies", "deviation", "knn", "per_class", "confusion", "probe_sha256")
        return {key: choices(value) for key, value in figures.items() if key not in reported}

    assert choices(true) == choices(moved)
    assert {"C", "validation_accuracy"} == set(choices(true)["linear_probe"])


def test_what_is_there_is_not_done_again(
    evaluated: Path, checkpoint: Path, coloured: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = read(evaluated)
    forbid_work(monkeypatch)
    assert evaluate(coloured, checkpoint, evaluated, device="cpu", extras=EVERYTHING) == metrics
    (evaluated / "metrics.json").unlink()
    (evaluated / "report.html").unlink()
    (evaluated / "probe.safetensors").unlink()
    assert evaluate(coloured, checkpoint, evaluated, device="cpu", extras=EVERYTHING) == metrics
    assert (evaluated / "report.html").exists()
    load_probe(evaluated / "probe.safetensors")


def test_a_promised_file_that_is_gone_or_changed_is_made_anew(
    evaluated: Path, checkpoint: Path, coloured: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    metrics, probe = read(out), (out / "probe.safetensors").read_bytes()
    assert sorted(metrics["files"]) == ["probe.safetensors", "report.html", "tsne.png"]
    for name in metrics["files"]:
        (out / name).unlink()
        assert evaluate(coloured, checkpoint, out, device="cpu", extras=EVERYTHING) == metrics
        assert (out / name).is_file()
    (out / "probe.safetensors").write_bytes(probe[:-4] + b"else")
    assert evaluate(coloured, checkpoint, out, device="cpu", extras=EVERYTHING) == metrics
    assert (out / "probe.safetensors").read_bytes() == probe


def test_a_device_that_is_not_there_leaves_everything_as_it_was(
    evaluated: Path, checkpoint: Path, coloured: Dataset
) -> None:
    before = {path: path.stat().st_mtime_ns for path in evaluated.iterdir()}
    with pytest.raises(ValueError, match=r"this machine has \d+ CUDA devices"):
        evaluate(coloured, checkpoint, evaluated, device="cuda:99")
    assert {path: path.stat().st_mtime_ns for path in evaluated.iterdir()} == before


def test_another_version_embeds_again(coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = raw_pixels(coloured)
    first = Subject(one, coloured, Home(tmp_path)).h
    monkeypatch.setattr(subject, "VERSION", VERSION + 1)
    monkeypatch.setattr(subject, "embed_all", lambda *_, **__: np.array(first) + 1)
    np.testing.assert_array_equal(Subject(one, coloured, Home(tmp_path)).h, first + 1)


def test_images_that_are_gone_meanwhile_are_one_line_of_error(
    checkpoint: Path, coloured: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(coloured.folder, tmp_path / "data")
    given = ["--data", str(tmp_path / "data"), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    words = [sys.executable, "-W", "ignore", "-c", CUT_SHORT, *given, "--device", "cpu"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.match(r"error: can't read image \d+ of .*images\.npy: ", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_damaged_cache_is_made_anew(checkpoint: Path, coloured: Dataset, tmp_path: Path) -> None:
    metrics = evaluate(coloured, checkpoint, tmp_path, device="cpu", baselines=False)
    cached = tmp_path / "embeddings" / "this-encoder.npy"
    whole = cached.read_bytes()
    cached.write_bytes(whole[: len(whole) // 2])
    for path in [tmp_path / "metrics.json", *(tmp_path / "tasks").glob("*.json")]:
        path.unlink()
    again = evaluate(coloured, checkpoint, tmp_path, device="cpu", baselines=False)
    assert again == metrics
    assert cached.read_bytes() == whole


def test_an_interrupted_evaluation_keeps_what_is_finished_and_goes_on(
    checkpoint: Path, coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(coloured.folder), "--checkpoint", str(checkpoint), "--out", str(tmp_path)]
    real, calls = fine_tuning.fine_tune, []

    def stopped_in_the_second(*given: Any, **named: Any) -> Any:
        calls.append(named["name"])
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given, **named)

    monkeypatch.setattr(fine_tuning, "fine_tune", stopped_in_the_second)
    assert main(COMMAND, [*arguments, "--fine-tune", "1", "--device", "cpu"]) == 130
    assert not (tmp_path / "metrics.json").exists()
    assert (tmp_path / "tasks" / "fine-tuning-100%-this-encoder.json").exists()
    forbid_work(monkeypatch, but=("fine-tuning", "t-SNE", "neighbours", "worst confusions"))
    assert main(COMMAND, [*arguments, "--fine-tune", "1", "--device", "cpu"]) == 0
    assert calls[1:3] == ["this encoder, 10% seed 0"] * 2
    assert len(calls) == 1 + 1 + 7
    assert read(tmp_path)["fine_tuning"]["100%"]["images"] == len(coloured.rows("train"))


def test_a_killed_evaluation_goes_on(checkpoint: Path, coloured: Dataset, tmp_path: Path) -> None:
    given = ["--data", str(coloured.folder), "--checkpoint", str(checkpoint), "--out", str(tmp_path)]
    words = [sys.executable, "-m", "training.evaluation.command", *given, "--fine-tune", "200", "--device", "cpu"]
    first = tmp_path / "tasks" / "linear-probe-raw-pixels.json"
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not first.exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
    stamp = first.stat().st_mtime_ns
    assert main(COMMAND, [*given, "--device", "cpu"]) == 0
    assert first.stat().st_mtime_ns == stamp
    assert read(tmp_path)["fine_tuning"] is None


def test_only_one_evaluation_works_in_a_folder(checkpoint: Path, coloured: Dataset, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another evaluation is at work"):
            evaluate(coloured, checkpoint, tmp_path)


def test_without_labels_there_are_signals_and_no_probe(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "flat", [f"{number}.png" for number in range(30)])
    dataset = prepare(tmp_path / "flat", tmp_path / "data", request=Request(image_size=8))
    out = tmp_path / "out"
    asked = ["--augmented-probe", "1", "--fine-tune", "1"]
    words = ["--data", str(dataset.folder), "--checkpoint", str(checkpoint), "--out", str(out), *asked]
    assert main(COMMAND, words) == 0
    metrics = read(out)
    for key in ("linear_probe", "knn", "few_labels", "confusion", "augmented_probe", "fine_tuning"):
        assert metrics[key] is None
    assert set(metrics["signals"]) == {"alignment", "uniformity", "spread", "rankme"}
    assert set(metrics["baselines"]) == BASELINES
    assert "signals: alignment" in capsys.readouterr().out
    assert not (out / "probe.safetensors").exists()
    assert (out / "tsne.png").exists()
    page = (out / "report.html").read_text()
    assert "Neighbours" in page
    assert "Worst confusions" not in page


@pytest.mark.parametrize("count", [2, 3])
def test_a_tiny_folder_is_evaluated_too(checkpoint: Path, tmp_path: Path, count: int) -> None:
    write_images(tmp_path / "flat", [f"{number}.png" for number in range(count)])
    dataset = prepare(tmp_path / "flat", tmp_path / "data", request=Request(image_size=8))
    (tmp_path / "out").mkdir()
    for stale in ("tsne.png", "probe.safetensors"):
        (tmp_path / "out" / stale).write_text("of other data")
    metrics = evaluate(dataset, checkpoint, tmp_path / "out", device="cpu")
    assert metrics["files"] == ["report.html"]
    assert not (tmp_path / "out" / "tsne.png").exists()
    assert not (tmp_path / "out" / "probe.safetensors").exists()
    assert all(np.isfinite(value) for value in metrics["signals"].values())
    assert "<h2>Neighbours" in (tmp_path / "out" / "report.html").read_text()


def test_another_image_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "flat", ["a.png", "b.png"])
    dataset = prepare(tmp_path / "flat", tmp_path / "data", request=Request(image_size=16))
    with pytest.raises(ValueError, match="images of 16 px, the checkpoint learnt at 8 px"):
        evaluate(dataset, checkpoint, tmp_path / "out")


@pytest.mark.parametrize(("flag", "value"), [("--augmented-probe", "-1"), ("--fine-tune", "100000")])
def test_a_wish_out_of_range_is_an_error(
    checkpoint: Path, coloured: Dataset, flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(coloured.folder), "--checkpoint", str(checkpoint), "--out", "nowhere"]
    assert main(COMMAND, [*given, flag, value]) == 1
    assert "accepted: 0 to" in capsys.readouterr().err


def test_a_contact_sheet(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 90, dtype=np.uint8)
    contact_sheet([(image, "a query", [(image, "0.98"), (image, "0.91")]), (image, "b", [])], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 300
    with pytest.raises(ValueError, match="rows is empty"):
        contact_sheet([], tmp_path / "none.png")


def test_real_images(cifar: Dataset, tmp_path: Path, tiny: Callable[..., PretrainConfig], coloured: Dataset) -> None:
    path = pretrain(cifar, tmp_path / "run", tiny(epochs=2, batch_size=64, encoder__image_size=16))
    animals = prepare(
        write_images(tmp_path / "images", [f"{label}/{n}.png" for label in ("ape", "boar") for n in range(20)]),
        tmp_path / "other",
        request=Request(image_size=16),
    )
    extras = Extras(transfer_to=(animals.folder,))
    metrics = evaluate(cifar, path, tmp_path / "out", device="cpu", extras=extras)
    assert 0.2 < metrics["linear_probe"]["accuracy"] < 0.9
    assert metrics["baselines"]["raw pixels"]["knn"]["k10"] > 0.25
    moved = metrics["transfer"][animals.facts["name"]]
    assert moved["baselines"].keys() == BASELINES
    loaded, test = load_encoder(path), animals.rows("test")
    h = embed(loaded.encoder, animals.images[test], Normalisation(loaded.mean, loaded.std))
    [fitted] = (tmp_path / "out").glob("transfer-*/tasks/this-encoder-probe.safetensors")
    said = load_probe(fitted).logits(h).argmax(axis=1)
    assert moved["linear_probe"]["accuracy"] == pytest.approx(np.mean(said == animals.labels_of(test)))
    assert sum(moved["counts"].values()) == 40
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("taken for") >= 3
    with pytest.raises(ValueError, match=r"images of 8 px, the checkpoint learnt at 16 px; prepare it again with"):
        evaluate(cifar, path, tmp_path / "out", extras=Extras(transfer_to=(coloured.folder,)))
