"""Fine-tuning: the plain loop's weights, chosen on validation alone, and an encoder that stays as it was."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from tqdm import tqdm

from tests.training.labelled import in_memory
from training.data.dataset import Dataset
from training.evaluation import fine_tune as module
from training.evaluation.augmented_probe import crop_and_flip
from training.evaluation.fine_tune import RATES, Setting, fine_tune, fine_tune_all
from training.evaluation.label_splits import LabelSplits
from training.evaluation.representations import raw_pixels
from training.evaluation.subject import Home, Subject
from training.model.encoder import Encoder, build_encoder, freeze
from training.model.optimise import rate_factor
from training.model.pixels import Normalisation, normalise, to_float
from training.model.views import apply, draw, views_generator
from training.recipe.config import EncoderConfig, ViewsConfig
from training.run.batches import Batches

HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return freeze(build_encoder(EncoderConfig("resnet18", stem="small_stride2", image_size=8)))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """72 noise images of 8 px in two shades."""
    rng = np.random.default_rng(0)
    names = ["dark", "light"] * 36
    shades = np.array([[60, 195][name == "light"] for name in names])
    images = np.clip(shades[:, None, None, None] + rng.normal(0, 30, (72, 8, 8, 3)), 0, 255).astype(np.uint8)
    return in_memory(images, ["train"] * 40 + ["validation"] * 16 + ["test"] * 16, names)


@pytest.fixture(scope="module")
def splits(data: Dataset) -> LabelSplits:
    found = LabelSplits.of(data)
    assert found is not None
    return found


def setting(epochs: int) -> Setting:
    return Setting(epochs, ViewsConfig(), HALF, CPU)


def test_it_learns_and_leaves_the_encoder_as_it_was(encoder: Encoder, data: Dataset, splits: LabelSplits) -> None:
    before = copy.deepcopy(encoder.state_dict())
    found = fine_tune(encoder, data, splits, setting(8), name="this")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.frozen
    assert not encoder.training
    assert found["accuracy"] > 0.7
    assert found["lr"] in RATES
    assert 1 <= found["epoch"] <= found["epochs"] == 8
    assert found["images"] == 40


def test_the_labels_of_test_choose_nothing(encoder: Encoder, data: Dataset, splits: LabelSplits) -> None:
    turned = splits.labels.copy()
    turned[splits.test] = 1 - turned[splits.test]
    true, moved = (
        fine_tune(encoder, data, one, setting(2), name="this") for one in (splits, replace(splits, labels=turned))
    )
    assert moved["accuracy"] == pytest.approx(1 - true["accuracy"])
    for key in ("lr", "epoch", "validation_accuracy"):
        assert moved[key] == true[key]


def test_without_validation_the_first_rate_and_the_last_epoch_are_taken(
    encoder: Encoder, data: Dataset, splits: LabelSplits
) -> None:
    found = fine_tune(encoder, data, replace(splits, validation=splits.train[:0]), setting(2), name="this")
    assert (found["lr"], found["epoch"], found["validation_accuracy"]) == (RATES[0], 2, None)


def test_training_is_the_plain_loop(encoder: Encoder, data: Dataset, splits: LabelSplits) -> None:
    batches = Batches(data.images, splits.train, batch_size=16, seed=0, device=CPU)
    ours = module._copied(encoder, 2, CPU)
    plain = module._copied(encoder, 2, CPU)
    list(module._train(ours, splits, batches, setting(2), rate=0.1, bar=tqdm(disable=True)))

    speed = {name: torch.zeros_like(value) for name, value in plain.named_parameters()}
    plain.train()
    for step in range(4):
        rows = splits.train[batches.positions(step)]
        draws = draw(16, crop_and_flip(ViewsConfig()), height=8, width=8, generator=views_generator(0, step))
        views = normalise(apply(to_float(torch.from_numpy(data.images[rows])), draws), HALF)
        plain.zero_grad()
        F.cross_entropy(plain(views), torch.from_numpy(splits.labels[rows])).backward()
        rate = 0.1 * 16 / 256 * rate_factor(step, total=4, warmup=0)
        with torch.no_grad():
            for name, value in plain.named_parameters():
                assert value.grad is not None
                decay = 1e-4 if value.ndim > 1 else 0.0
                speed[name] = 0.9 * speed[name] + value.grad + decay * value
                value.sub_(rate * speed[name])
    expected = dict(plain.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-3)


def test_the_share_right_is_counted_image_by_image(encoder: Encoder, data: Dataset, splits: LabelSplits) -> None:
    network = module._copied(encoder, 2, CPU)
    torch.nn.init.normal_(network.linear.weight, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad():
        guesses = [
            int(network(normalise(to_float(torch.from_numpy(data.images[[row]])), HALF)).argmax())
            for row in splits.test
        ]
    wanted = float(np.mean(np.array(guesses) == splits.labels[splits.test]))
    assert module.right(network, data, splits, splits.test, setting(1)) == pytest.approx(wanted)
    assert 0 < wanted < 1  # so that neither all nor none would do


def test_of_equally_good_epochs_the_last_of_the_first_rate_is_taken(
    encoder: Encoder, data: Dataset, splits: LabelSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.5, 0.75, 0.75, 0.25, 0.75, 0.5, 0.125])  # three epochs of each rate, then test
    monkeypatch.setattr(module, "right", lambda *_: next(shares))
    found = fine_tune(encoder, data, splits, setting(3), name="this")
    assert (found["lr"], found["epoch"]) == (RATES[0], 3)
    assert (found["validation_accuracy"], found["accuracy"]) == (0.75, 0.125)


def test_another_start_or_seed_is_another_task(
    encoder: Encoder, data: Dataset, splits: LabelSplits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def instead(*_: Any, name: str) -> dict[str, Any]:
        done.append(name)
        return {"accuracy": 0.5, "images": 4}

    monkeypatch.setattr(module, "fine_tune", instead)
    subject, start = Subject(raw_pixels(data), data, Home(tmp_path)), EncoderConfig("resnet18", image_size=8)

    def times(setting: Setting, start: EncoderConfig) -> int:
        done.clear()
        fine_tune_all(subject, encoder, splits, setting, start=start)
        return len(done)

    assert times(setting(2), start) == 4  # 100% and three draws of 10%
    assert times(setting(2), start) == 0
    assert times(setting(2), replace(start, zero_init_residual=False)) == 4
    assert times(replace(setting(2), seed=1), start) == 4


def test_epochs_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="epochs is 0; accepted: 1 to 10000"):
        setting(0)
