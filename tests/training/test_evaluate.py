"""The probe, kNN and signals; and that evaluation changes nothing and looks at test once."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.training.conftest import write_images
from training import evaluate as command
from training.checkpoint import load_encoder
from training.config import PretrainConfig, override
from training.dataset import Dataset
from training.embed import embed
from training.encoder import build_encoder
from training.evaluate import evaluate, table
from training.knn import majority_accuracy, weighted_accuracy
from training.pixels import Normalisation
from training.pretrain import pretrain
from training.probe import accuracy, fit_pipeline, fit_probe, fold, load_probe, save_probe
from training.report import contact_sheet
from training.signals import spread, uniformity
from training.sources import Request, prepare

Tiny = Callable[..., PretrainConfig]
Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def blobs(n: int, labels: int, *, seed: int = 0, noise: float = 0.6) -> Labelled:
    """Unit-norm embeddings (n, 12) around a centre for each label."""
    centres = np.random.default_rng(99).normal(size=(labels, 12))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % labels
    h = centres[codes] + noise * rng.normal(size=(n, 12))
    return (h / np.linalg.norm(h, axis=1, keepdims=True)).astype(np.float32), codes.astype(np.int64)


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


@pytest.mark.parametrize("labels", [2, 4])
def test_the_folded_probe_is_the_pipeline(labels: int) -> None:
    h, codes = blobs(200, labels)
    pipeline = fit_pipeline(h, codes, c=0.1)
    logits = fold(pipeline, tuple(map(str, range(labels)))).logits(h)
    decision = pipeline.decision_function(h)
    if labels == 2:
        logits = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(logits, decision, atol=1e-4)


def test_the_probe_is_chosen_on_validation_and_knows_only_labels_seen_in_train(tmp_path: Path) -> None:
    train, validation = blobs(120, 3, seed=1), blobs(30, 3, seed=2)
    fit = fit_probe(train, validation, ["a", "b", "c", "never"])
    assert fit.probe.classes == ("a", "b", "c")
    scores = {
        c: np.mean(fit_pipeline(*train, c=c).predict(validation[0]) == validation[1]) for c in (1e-4, 1e-3, 1e-2, 1e-1)
    }
    assert fit.validation_accuracy == max(scores.values())
    assert fit.c == min(c for c, score in scores.items() if score == max(scores.values()))
    assert fit_probe(train, (validation[0][:0], validation[1][:0]), "abc").validation_accuracy is None
    assert accuracy(fit.probe, validation[0][:3], ["a", "b", "never"]) <= 2 / 3
    save_probe(tmp_path / "probe.safetensors", fit.probe)
    loaded = load_probe(tmp_path / "probe.safetensors")
    assert np.array_equal(loaded.weight, fit.probe.weight)
    assert np.array_equal(loaded.bias, fit.probe.bias)
    assert loaded.classes == fit.probe.classes
    with pytest.raises(ValueError, match="1 labels; a probe needs at least 2"):
        fit_probe((train[0], np.zeros(120, dtype=np.int64)), validation, ["a"])


def test_knn_equals_the_plain_loop() -> None:
    memory, queries = blobs(60, 3, seed=1, noise=1.5), blobs(40, 3, seed=2, noise=1.5)

    def naive(k: int, weight: Callable[[float], float]) -> float:
        right = 0
        for h, wanted in zip(*queries, strict=True):
            scores = memory[0] @ h
            nearest = np.argsort(-scores)[:k]
            votes = [sum(weight(float(scores[i])) for i in nearest if memory[1][i] == code) for code in range(3)]
            right += int(np.argmax(votes) == wanted)
        return right / len(queries[1])

    assert majority_accuracy(memory, queries) == naive(10, lambda s: 1 + 1e-6 * s)
    assert weighted_accuracy(memory, queries) == naive(60, lambda s: float(np.exp(s / 0.1)))


def test_signals_tell_collapse_from_spread() -> None:
    rng = np.random.default_rng(0)
    even = rng.normal(size=(400, 32)).astype(np.float32)
    even /= np.linalg.norm(even, axis=1, keepdims=True)
    collapsed = np.tile(even[:1], (400, 1))
    assert spread(even) == pytest.approx(1, abs=0.02)
    assert spread(collapsed) == pytest.approx(0, abs=1e-5)
    assert uniformity(even) < -3
    assert uniformity(collapsed) == pytest.approx(0, abs=1e-5)


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


def test_evaluation_leaves_the_encoder_alone_and_writes_everything(
    checkpoint: Path, coloured: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_encoder(checkpoint)
    monkeypatch.setattr(command, "load_encoder", lambda path: kept)
    before = {name: value.clone() for name, value in kept.encoder.state_dict().items()}
    file = checkpoint.read_bytes()
    metrics = evaluate(coloured, checkpoint, tmp_path, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in kept.encoder.state_dict().items())
    assert checkpoint.read_bytes() == file
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert set(metrics["baselines"]) == {"random encoder", "raw pixels"}
    assert Image.open(tmp_path / "tsne.png").width > 300
    assert "raw pixels" in table(metrics)
    probe, test = load_probe(tmp_path / "probe.safetensors"), coloured.rows("test")
    h = embed(kept.encoder, coloured.images[test], Normalisation(kept.mean, kept.std))
    assert probe.classes == ("blue", "red", "sand")
    found = np.mean(probe.logits(h).argmax(axis=1) == coloured.labels_of(test))
    assert metrics["linear_probe"]["accuracy"] == pytest.approx(found)
    assert metrics["baselines"]["raw pixels"]["linear_probe"]["accuracy"] > 0.9
    monkeypatch.setattr(command, "embed", lambda *_, **__: pytest.fail("worked again"))
    assert evaluate(coloured, checkpoint, tmp_path, device="cpu") == metrics


def test_without_labels_there_are_signals_and_no_probe(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "flat", [f"{number}.png" for number in range(30)])
    dataset = prepare(tmp_path / "flat", tmp_path / "data", request=Request(image_size=8))
    out = tmp_path / "out"
    command.main(["--data", str(dataset.folder), "--checkpoint", str(checkpoint), "--out", str(out)])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["linear_probe"] is None
    assert metrics["knn"] is None
    assert set(metrics["signals"]) == {"alignment", "uniformity", "spread"}
    assert "signals: alignment" in capsys.readouterr().out
    assert not (out / "probe.safetensors").exists()
    assert (out / "tsne.png").exists()


def test_another_image_size_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "flat", ["a.png", "b.png"])
    dataset = prepare(tmp_path / "flat", tmp_path / "data", request=Request(image_size=16))
    with pytest.raises(ValueError, match="images of 16 px, the checkpoint learnt at 8 px"):
        evaluate(dataset, checkpoint, tmp_path / "out")


def test_a_contact_sheet(tmp_path: Path) -> None:
    image = np.full((8, 8, 3), 90, dtype=np.uint8)
    contact_sheet([(image, "a query", [(image, "0.98"), (image, "0.91")]), (image, "b", [])], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 300
    with pytest.raises(ValueError, match="rows is empty"):
        contact_sheet([], tmp_path / "none.png")
