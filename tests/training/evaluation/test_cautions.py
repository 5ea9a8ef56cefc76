"""What a reader is warned of."""

from typing import Any

import numpy as np
import pytest

from tests.training.labelled import in_memory
from training.checkpoint import LoadedEncoder
from training.config import EncoderConfig, PretrainConfig
from training.encoder import build_encoder, freeze
from training.evaluation.cautions import cautions, margin

HALF = (0.5, 0.5, 0.5)
HEALTHY = {"alignment": 0.4, "uniformity": -2.0, "spread": 0.8, "rankme": 30.0}


def told(own: float, random: float, *, test: int = 60, **signals: float) -> str:
    """The cautions for a probe and a kNN of accuracy `own` beside a random encoder's."""
    splits = ["train"] * 40 + ["validation"] * 20 + ["test"] * test
    labels = ["a", "b"] * (len(splits) // 2) + ["a"] * (len(splits) % 2)
    labels[-1] = "unheard of"
    data = in_memory(np.zeros((len(splits), 8, 8, 3), dtype=np.uint8), splits, labels)
    config = PretrainConfig(encoder=EncoderConfig("resnet18", image_size=8))
    facts = {"step": 9, "total_steps": 9, "seconds": 1.0, "dataset": {"digest": "images", "name": "images"}}
    loaded = LoadedEncoder(freeze(build_encoder(config.encoder)), config, HALF, HALF, facts)
    figures: dict[str, Any] = {"linear_probe": {"accuracy": own}, "knn": {"k10": own}, "signals": HEALTHY | signals}
    other = {"linear_probe": {"accuracy": random}, "knn": {"k10": random}}
    return "\n".join(cautions(figures | {"baselines": {"random encoder": other}}, data, loaded))


def test_a_good_run_on_few_images_is_told_their_number_only() -> None:
    text = told(0.95, 0.5)
    assert "only 60 test images" in text
    assert "random encoder" not in text
    assert "unheard of" in text
    assert "60 test images" not in told(0.95, 0.5, test=4000)


def test_a_lead_that_is_none_is_told() -> None:
    assert "By linear probe the encoder is no better than random encoder: 50.0% against 52.0%." in told(0.5, 0.52)
    assert "the lead over random encoder is within the error" in told(0.55, 0.52)


def test_collapse_is_told_first() -> None:
    assert told(0.9, 0.5, spread=0.01).startswith("The embeddings have collapsed")


def test_the_margin_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    found = rng.binomial(400, 0.8, 4000) / 400
    assert np.mean(np.abs(found - 0.8) < margin(0.8, 400)) == pytest.approx(0.95, abs=0.015)
    assert margin(1.0, 50) > 0.01
