"""Label-free signals against their definitions as plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.training.labelled import blobs
from training.measures.embed import Embedder
from training.measures.label_free import alignment_by, label_free_signals, rankme, spread, uniformity
from training.model.views import random_views, views_generator
from training.recipe.config import ViewsConfig


def test_signals_tell_collapse_from_spread() -> None:
    rng = np.random.default_rng(0)
    even = rng.normal(size=(400, 32)).astype(np.float32)
    even /= np.linalg.norm(even, axis=1, keepdims=True)
    collapsed = np.tile(even[:1], (400, 1))
    assert spread(even) == pytest.approx(1, abs=0.02)
    assert spread(collapsed) == pytest.approx(0, abs=1e-5)
    assert uniformity(even) < -3
    assert uniformity(collapsed) == pytest.approx(0, abs=1e-5)
    assert rankme(even) > 25
    assert rankme(collapsed) == pytest.approx(1, abs=0.01)


def test_signals_equal_their_definitions() -> None:
    h = blobs(40, 3)[0]
    found = label_free_signals(h)
    pairs = [math.exp(-2 * float(np.sum((a - b) ** 2))) for a, b in itertools.combinations(h.astype(np.float64), 2)]
    assert found["uniformity"] == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-5)
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(h.astype(np.float64).T @ h.astype(np.float64)), 0))
    shares = [float(value / values.sum()) for value in values]
    assert found["rankme"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-4)


def test_alignment_is_the_distance_between_two_views() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    by = Embedder(lambda x: F.normalize(x.flatten(1), dim=1), 192, torch.device("cpu"))
    first, second = random_views(torch.from_numpy(images), ViewsConfig(), views_generator(0, 0))
    naive = [
        float((by.function(a[None]) - by.function(b[None])).square().sum()) for a, b in zip(first, second, strict=True)
    ]
    assert alignment_by(by, images, views=ViewsConfig()) == pytest.approx(np.mean(naive), rel=1e-5)


def test_of_many_views_alignment_embeds_two() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    calls: list[torch.Tensor] = []

    def function(views: torch.Tensor) -> torch.Tensor:
        calls.append(views)
        return F.normalize(views.flatten(1), dim=1)

    by = Embedder(function, 192, torch.device("cpu"))
    assert alignment_by(by, images, views=ViewsConfig(count=5)) == alignment_by(by, images, views=ViewsConfig())
    assert len(calls) == 4
