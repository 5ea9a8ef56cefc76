"""What a reader is warned of."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.labelled import in_memory
from training.data.dataset import Dataset
from training.evaluation.cautions import cautions, margin
from training.model.encoder import build_encoder, freeze
from training.recipe.config import EncoderConfig, PretrainConfig
from training.run.checkpoint import LoadedEncoder

HALF = (0.5, 0.5, 0.5)
HEALTHY = {"alignment": 0.4, "uniformity": -2.0, "spread": 0.8, "rankme": 30.0}


def figures(accuracy: float, *, c: float = 0.01, chosen_by: float | None = 0.9) -> dict[str, Any]:
    probe = {"accuracy": accuracy, "C": c, "validation_accuracy": chosen_by}
    return {"linear_probe": probe, "knn": {"k10": accuracy}, "signals": HEALTHY}


def evaluated(own: float, random: float) -> dict[str, Any]:
    """Metrics of a probe and a kNN of accuracy `own` beside a random encoder's."""
    return figures(own) | {"baselines": {"random encoder": figures(random)}, "transfer": {}}


def subject(test: int) -> tuple[Dataset, LoadedEncoder]:
    splits = ["train"] * 40 + ["validation"] * 20 + ["test"] * test
    labels = ["a", "b"] * (len(splits) // 2) + ["a"] * (len(splits) % 2)
    labels[-1] = "unheard of"
    data = in_memory(np.zeros((len(splits), 8, 8, 3), dtype=np.uint8), splits, labels)
    config = PretrainConfig(encoder=EncoderConfig("resnet18", image_size=8))
    facts = {"step": 9, "total_steps": 9, "seconds": 1.0, "dataset": {"digest": "images", "name": "images"}}
    return data, LoadedEncoder(freeze(build_encoder(config.encoder)), config, HALF, HALF, facts)


def told(own: float, random: float, *, test: int = 60, **signals: float) -> str:
    metrics = evaluated(own, random)
    return "\n".join(cautions(metrics | {"signals": HEALTHY | signals}, *subject(test)))


def test_a_good_run_on_few_images_is_told_their_number_only() -> None:
    text = told(0.95, 0.5)
    assert "only 60 test images" in text
    assert "random encoder" not in text
    assert "unheard of" in text
    assert "regularisation" not in text
    assert "60 test images" not in told(0.95, 0.5, test=4000)


def test_a_lead_that_is_none_is_told() -> None:
    assert "By linear probe the encoder is no better than random encoder: 50.0% against 52.0%." in told(0.5, 0.52)
    assert "the lead over random encoder is within the error" in told(0.55, 0.52)


def test_the_error_of_a_lead_is_that_of_the_difference() -> None:
    own, other = 0.964, 0.939
    assert own - other > margin(own, 359)
    assert own - other < math.hypot(margin(own, 359), margin(other, 359))
    said = "the lead over random encoder is within the error: 96.4% against 93.9%"
    assert said in told(own, other, test=359)
    assert said not in told(own, other, test=3590)


def test_collapse_is_told_first() -> None:
    assert told(0.9, 0.5, spread=0.01).startswith("The embeddings have collapsed")
    assert "2.9 dimensions only" in told(0.9, 0.5, rankme=2.9)


@pytest.mark.parametrize(
    ("c", "chosen_by", "warned"),
    [(1e-6, 0.9, True), (1.0, 0.9, True), (1e-5, 0.9, False), (1e-6, 1.0, False), (1e-6, None, False)],
)
def test_a_regularisation_at_an_end_of_the_grid_is_told(c: float, chosen_by: float | None, warned: bool) -> None:
    extreme = figures(0.5, c=c, chosen_by=chosen_by)
    moved = {"animals": figures(0.8) | {"baselines": {"raw pixels": extreme}}}
    metrics = evaluated(0.9, 0.5) | {"baselines": {"random encoder": extreme}, "transfer": moved}
    text = "\n".join(cautions(metrics, *subject(60)))
    assert (f"{c:g}), raw pixels on animals ({c:g})" in text) == warned
    assert ("an end of what was tried, 1e-06 to 1" in text) == warned
    assert "this encoder (" not in text


def test_a_run_from_imagenet_weights_without_that_baseline_is_told() -> None:
    data, loaded = subject(60)
    config = replace(loaded.config, encoder=replace(loaded.config.encoder, weights="imagenet"))
    began = loaded._replace(config=config)
    metrics = evaluated(0.9, 0.5)
    said = "The run began from ImageNet weights, which can't be fetched here"
    assert said in "\n".join(cautions(metrics, data, began))
    assert said not in "\n".join(cautions(metrics, data, loaded))
    metrics["baselines"]["before training"] = figures(0.91)
    text = "\n".join(cautions(metrics, data, began))
    assert said not in text
    assert "By kNN (k=10) the encoder is no better than before training: 90.0% against 91.0%." in text


def test_the_margin_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    found = rng.binomial(400, 0.8, 4000) / 400
    assert np.mean(np.abs(found - 0.8) < margin(0.8, 400)) == pytest.approx(0.95, abs=0.015)
    assert margin(1.0, 50) > 0.01
