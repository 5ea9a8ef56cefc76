"""Baselines: pixels against NumPy, the random encoder against a fresh one; and what is cached is what they give."""

import urllib.error
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import torchvision

from tests.training.labelled import in_memory
from training.data.dataset import Dataset
from training.evaluation import representations as module
from training.evaluation.representations import (
    BASELINES,
    PIXELS,
    RANDOM,
    build_baselines,
    random_encoder,
    raw_pixels,
    this_encoder,
)
from training.measures.embed import embed_all, embed_batch
from training.model.encoder import build_encoder, freeze
from training.model.pixels import Normalisation, to_float
from training.recipe.config import EncoderConfig, PretrainConfig
from training.run.checkpoint import LoadedEncoder

HALF = (0.5, 0.5, 0.5)


def images(count: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [8, 64])
def test_raw_pixels_are_centred_at_train_and_of_unit_norm(size: int) -> None:
    data = in_memory(images(30, size), ["train"] * 20 + ["test"] * 10, None)
    h = embed_all(raw_pixels(data).by, data.images, description=None)
    flat = data.images.astype(np.float64) / 255
    if size > 32:
        flat = flat.reshape(30, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    flat = flat.transpose(0, 3, 1, 2).reshape(30, -1)
    flat -= flat[:20].mean(axis=0)
    np.testing.assert_allclose(h, flat / np.linalg.norm(flat, axis=1, keepdims=True), atol=1e-5)


def test_the_mean_image_is_made_once_and_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._mean_image
    calls: list[Dataset] = []

    def watched(data: Dataset) -> torch.Tensor:
        calls.append(data)
        return real(data)

    monkeypatch.setattr(module, "_mean_image", watched)
    data = in_memory(images(9, 8), ["train"] * 9, None)
    by = raw_pixels(data).by
    assert by.dim == 192
    assert not calls
    for _ in range(2):
        embed_all(by, data.images, description=None)
    assert len(calls) == 1


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


def from_imagenet() -> LoadedEncoder:
    """An encoder whose run began, as its configuration says, from ImageNet weights."""
    config = PretrainConfig(encoder=EncoderConfig("resnet18", "imagenet", 32, weights="imagenet"))
    return LoadedEncoder(freeze(build_encoder(config.encoder, seed=None)), config, HALF, HALF, {})


def test_a_run_from_imagenet_weights_is_compared_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where torchvision would put its download stands in for it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = tmp_path / "hub/checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    stand_in = torchvision.models.resnet18()
    torch.save(stand_in.state_dict(), file)
    data, loaded = in_memory(images(4, 32), ["train"] * 4, None), from_imagenet()
    found = build_baselines(data, loaded, torch.device("cpu"))
    assert tuple(one.name for one in found) == BASELINES
    stand_in.fc = torch.nn.Identity()
    with torch.no_grad():
        wanted = embed_batch(stand_in.eval(), to_float(torch.from_numpy(data.images)), Normalisation(HALF, HALF))
    np.testing.assert_allclose(embed_all(found[0].by, data.images, description=None), wanted.numpy(), atol=1e-5)
    assert len({str(one.key) for one in found}) == 3


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), RuntimeError("invalid hash value")])
def test_without_a_connection_the_other_baselines_are_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    data = in_memory(images(4, 32), ["train"] * 4, None)
    found = build_baselines(data, from_imagenet(), torch.device("cpu"))
    assert [one.name for one in found] == [RANDOM, PIXELS]
    assert "can't fetch the ImageNet weights of resnet18" in caplog.text
