"""Baselines: pixels against NumPy, the random encoder against a fresh one; and what is cached is what they give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.labelled import in_memory
from training.checkpoint import LoadedEncoder
from training.config import EncoderConfig, PretrainConfig
from training.embed import embed_all, embed_batch
from training.encoder import build_encoder, freeze
from training.evaluation.representations import random_encoder, raw_pixels, this_encoder
from training.pixels import Normalisation, to_float

HALF = (0.5, 0.5, 0.5)


def images(count: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [8, 64])
def test_raw_pixels_are_centred_and_of_unit_norm(size: int) -> None:
    data = in_memory(images(30, size), ["train"] * 30, None)
    h = embed_all(raw_pixels(data).by, data.images, description=None)
    flat = data.images.astype(np.float64) / 255
    if size > 32:
        flat = flat.reshape(30, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    flat = flat.transpose(0, 3, 1, 2).reshape(30, -1)
    flat -= flat.mean(axis=0)
    np.testing.assert_allclose(h, flat / np.linalg.norm(flat, axis=1, keepdims=True), atol=1e-5)


def test_encoders_and_their_keys() -> None:
    config = PretrainConfig(encoder=EncoderConfig("resnet18", image_size=8))
    loaded = LoadedEncoder(freeze(build_encoder(config.encoder, seed=5)), config, HALF, HALF, {})
    device = torch.device("cpu")
    own, random = this_encoder(loaded, "abc", device), random_encoder(loaded, device)
    fresh = freeze(build_encoder(replace(config.encoder, zero_init_residual=False), seed=config.seed))
    pixels = to_float(torch.from_numpy(images(4, 8)))
    for representation, encoder in ((own, loaded.encoder), (random, fresh)):
        with torch.no_grad():
            wanted = embed_batch(encoder, pixels, Normalisation(HALF, HALF))
        found = embed_all(representation.by, images(4, 8), description=None)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    other = random_encoder(loaded._replace(config=replace(config, seed=1)), device)
    assert own.key == {"checkpoint": "abc"}
    assert other.key != random.key


def test_rows_are_embedded_in_the_order_asked_for(tmp_path: Path) -> None:
    data = in_memory(images(9, 8), ["train"] * 9, None)
    by = raw_pixels(data).by
    whole = embed_all(by, data.images, description=None)
    rows = np.array([7, 0, 3])
    assert np.array_equal(embed_all(by, data.images, rows=rows, description=None), whole[rows])
    assert embed_all(by, data.images, rows=rows[:0], description=None).shape == (0, 192)
