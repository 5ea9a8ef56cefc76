"""Signals while training: they change nothing, they are what their definitions say, and warn in plain words."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.conftest import write_images
from tests.training.labelled import in_memory
from tests.training.processes import learnt
from tests.training.run.test_curves import curves
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare
from training.measures.label_free import rankme, spread, uniformity
from training.model.nt_xent import loss_floor
from training.model.pixels import Normalisation
from training.recipe.config import PretrainConfig, ViewsConfig
from training.run.checkpoint import TrainingState
from training.run.log import read_log
from training.run.monitor import Monitor, warnings
from training.run.options import RunOptions
from training.run.pretrain import pretrain
from training.run.run import open_run

Tiny = Callable[..., PretrainConfig]


@pytest.fixture
def state(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> TrainingState:
    """A fresh run on labelled images, in train mode."""
    state = open_run(coloured, tmp_path, tiny(), device=torch.device("cpu"))
    state.encoder.train()
    return state


@pytest.fixture
def monitor(coloured: Dataset, state: TrainingState) -> Monitor:
    return Monitor(coloured, state.normalisation, state.config.views)


def test_measuring_leaves_everything_as_it_was(state: TrainingState, monitor: Monitor) -> None:
    state.encoder.layer2[0].eval()  # not all of one mode, and not all trained
    state.encoder.conv1.requires_grad_(False)
    before = copy.deepcopy(state.encoder.state_dict())
    modes = [(module.training, getattr(module, "frozen", None)) for module in state.encoder.modules()]
    trained = [parameter.requires_grad for parameter in state.encoder.parameters()]
    torch.manual_seed(5)
    np.random.seed(5)  # the generator that others may use
    generators = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, second = monitor.measure(state.encoder), monitor.measure(state.encoder)
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in state.encoder.state_dict().items())
    assert modes == [(module.training, getattr(module, "frozen", None)) for module in state.encoder.modules()]
    assert trained == [parameter.requires_grad for parameter in state.encoder.parameters()]
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])  # type: ignore[index]


def test_embeddings_that_are_not_finite_are_left_to_the_checks_that_stop_a_run(
    state: TrainingState, monitor: Monitor
) -> None:
    with torch.no_grad():
        state.encoder.conv1.weight[0, 0, 0, 0] = float("nan")
    assert monitor.measure(state.encoder) == {}


def test_an_error_while_measuring_leaves_it_so_too(
    state: TrainingState, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        raise OSError("gone")

    monkeypatch.setattr(state.encoder, "forward", broken)
    with pytest.raises(OSError, match="gone"):
        monitor.measure(state.encoder)
    assert all(module.training for module in state.encoder.modules())
    assert not state.encoder.frozen


def test_a_run_measured_at_every_step_is_the_run_without(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    options = RunOptions(device="cpu", log_steps=1, monitor_steps=1)
    pretrain(coloured, tmp_path / "often", tiny(epochs=2), options)
    pretrain(coloured, tmp_path / "seldom", tiny(epochs=2), RunOptions(device="cpu", monitor_steps=1000))
    assert learnt(tmp_path / "often") == learnt(tmp_path / "seldom")
    log = read_log(tmp_path / "often/log.jsonl")
    assert all({"alignment", "uniformity", "spread", "rankme", "knn"} <= set(entry) for entry in log)
    measured = [entry["step"] for entry in read_log(tmp_path / "seldom/log.jsonl") if "rankme" in entry]
    assert measured == [10]
    check_the_logs_other_numbers(log)
    for name, points in curves(tmp_path / "often").items():
        logged = {entry["step"]: entry[name.split("/")[1]] for entry in log}
        assert points == pytest.approx(logged, rel=1e-6), name


def check_the_logs_other_numbers(log: list[dict[str, float]]) -> None:
    """Batch 16, 10 steps of 2 epochs."""
    before = 0.0
    for step, entry in enumerate(log, 1):
        a_step = entry["seconds"] - before
        before = entry["seconds"]
        assert entry["step"] == step
        assert entry["epoch"] == pytest.approx(step / 5)
        assert entry["view_size"] == 8
        assert a_step > 0
        assert 16 / entry["images_per_s"] == pytest.approx(a_step, abs=0.002)  # seconds are rounded to 1 ms
        assert entry["eta_seconds"] == pytest.approx(a_step * (10 - step), abs=0.06 + 0.001 * (10 - step))
        assert entry["loss"] > entry["floor"] == loss_floor(16, 2, 0.5)


def test_by_default_signals_are_measured_at_the_ends_of_epochs(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    pretrain(coloured, tmp_path, tiny(), RunOptions(device="cpu", tensorboard=False))
    measured = [entry["step"] for entry in read_log(tmp_path / "log.jsonl") if "rankme" in entry]
    assert measured == [5, 10, 15, 20]


def test_a_short_run_is_measured_within_its_epochs(coloured: Dataset, tmp_path: Path, tiny: Tiny) -> None:
    pretrain(coloured, tmp_path, tiny(epochs=2), RunOptions(device="cpu", tensorboard=False))
    measured = [entry["step"] for entry in read_log(tmp_path / "log.jsonl") if "rankme" in entry]
    assert measured == list(range(1, 11))


def test_without_labels_there_is_no_knn(tmp_path: Path, tiny: Tiny) -> None:
    write_images(tmp_path / "images", [f"{number}.png" for number in range(30)])
    flat = prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
    state = open_run(flat, tmp_path, tiny(), device=torch.device("cpu"))
    signals = Monitor(flat, state.normalisation, state.config.views).measure(state.encoder)
    assert set(signals) == {"alignment", "uniformity", "spread", "rankme"}


def test_knn_knows_colours_that_labels_are_made_of(state: TrainingState, monitor: Monitor) -> None:
    assert monitor.measure(state.encoder)["knn"] > 0.8  # of three labels, each a colour


@torch.no_grad()
def test_a_collapsed_encoder_is_told_in_plain_words(state: TrainingState, monitor: Monitor) -> None:
    state.encoder.bn1.weight.zero_()  # the image is gone; what is left are biases
    state.encoder.bn1.bias.fill_(1)
    signals = monitor.measure(state.encoder)
    assert signals["spread"] < 1e-3
    assert signals["uniformity"] == pytest.approx(0, abs=1e-3)
    [warning] = monitor.warnings(signals)
    assert "the embeddings have collapsed: all images get nearly the same one (spread 0.000" in warning
    assert "--lr" in warning


@torch.no_grad()
def test_an_encoder_of_few_dimensions_is_told(state: TrainingState, monitor: Monitor) -> None:
    last = state.encoder.layer4[1]
    last.register_forward_hook(lambda _, given, got: two_dimensions(got))
    signals = monitor.measure(state.encoder)
    assert signals["spread"] > 0.1 / math.sqrt(512)
    assert signals["rankme"] < 2.1
    [warning] = monitor.warnings(signals | {"spread": 1.0})
    assert "dimensions only (RankMe; healthy is tens and more): dimensional collapse" in warning


def two_dimensions(maps: torch.Tensor) -> torch.Tensor:
    """(N, D, H, W), all but two channels zero."""
    kept = torch.zeros_like(maps)
    kept[:, :2] = maps[:, :2] + 0.1
    return kept


def test_alignment_by_chance_is_told_and_health_is_not(state: TrainingState, monitor: Monitor) -> None:
    healthy = {"spread": 0.8, "rankme": 40.0, "alignment": 0.4, "uniformity": -2.5}
    assert monitor.warnings(healthy) == []
    [warning] = monitor.warnings(healthy | {"alignment": 1.95})
    assert (
        "two views of an image are as far apart as two images (alignment 1.95, by chance 2): nothing is learnt"
        in warning
    )


def test_of_few_images_few_dimensions_are_no_warning() -> None:
    signals = {"spread": 0.8, "rankme": 2.5, "alignment": 0.4, "uniformity": -2.5}
    assert warnings(signals, 8) == []
    assert "2.5 dimensions only" in warnings(signals, 500)[0]


def test_of_images_sorted_by_label_alignment_is_measured_on_every_label() -> None:
    labels = np.repeat(["a", "b", "c", "d"], 300).tolist()
    data = in_memory(np.zeros((1200, 4, 4, 3), dtype=np.uint8), ["validation"] * 1200, labels)
    monitor = Monitor(data, Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ViewsConfig())
    assert len(monitor._aligned) == 250
    assert set(data.labels_of(monitor._aligned)) == {0, 1, 2, 3}


def test_a_short_run_on_real_images_is_healthy(
    cifar: Dataset, tmp_path: Path, tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(cifar, tmp_path, tiny(epochs=2, batch_size=64), RunOptions(device="cpu", monitor_steps=2))
    log = [entry for entry in read_log(tmp_path / "log.jsonl") if "rankme" in entry]
    assert len(log) > 2
    assert "collapse" not in caplog.text
    assert "nothing is learnt" not in caplog.text


def test_signals_are_their_definitions() -> None:
    h = unit_rows(np.random.default_rng(0).normal(size=(20, 6)) * [3, 2, 1, 1, 0.5, 0.1])
    count, width = h.shape
    deviations = []
    for d in range(width):
        mean = sum(h[i, d] for i in range(count)) / count
        deviations.append(math.sqrt(sum((h[i, d] - mean) ** 2 for i in range(count)) / count))
    assert spread(h) == pytest.approx(math.sqrt(width) * sum(deviations) / width, rel=1e-5)
    pairs = [math.exp(-2 * sum((h[i, d] - h[j, d]) ** 2 for d in range(width))) for i in range(count) for j in range(i)]
    assert uniformity(h) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    values = np.sqrt(np.linalg.eigvalsh(h.astype(np.float64).T @ h))
    shares = values / values.sum()
    assert rankme(h) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-4)
    assert rankme(unit_rows(np.eye(7))) == pytest.approx(7, rel=1e-4)
    assert rankme(unit_rows(np.ones((7, 4)))) == pytest.approx(1, abs=1e-3)


def unit_rows(h: NDArray[np.float64]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = (h / np.linalg.norm(h, axis=1, keepdims=True)).astype(np.float32)
    return rows
