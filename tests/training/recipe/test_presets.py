"""The recipes have the numbers that they promise, build for every kind of images, and fit JSON."""

import json
import math

import pytest
import torch

from training.model.encoder import build_encoder, build_head
from training.model.optimise import build_optimiser
from training.recipe.config import ViewsConfig, from_dict, override, to_dict
from training.recipe.presets import PRESETS, preset

KINDS = [(18, 8), (1437, 8), (50_000, 32), (105_000, 96), (10_000, 224)]  # photographs, digits, CIFAR, STL, folders


def test_cifar10_is_the_recipe_of_the_best_open_figures() -> None:
    config = preset("cifar10", images=50_000, image_size=32)
    assert (config.encoder.architecture, config.encoder.resolved_stem) == ("resnet50", "small")
    assert (config.batch_size, config.temperature, config.loss, config.epochs) == (512, 0.5, "nt_xent", 1000)
    assert (config.head.kind, config.head.hidden, config.head.out) == ("mlp", 2048, 128)
    assert config.views == ViewsConfig(
        count=2, crop_min=0.2, crop_max=1.0, flip_p=0.5, colour_p=0.8, colour_strength=0.5, grey_p=0.1, blur_p=0.0
    )
    optimiser = config.optimiser
    assert (optimiser.name, optimiser.momentum, optimiser.weight_decay) == ("sgd", 0.9, 5e-4)
    assert optimiser.warmup_epochs == 10


def test_cifar10s_stem_and_head_are_built_as_promised() -> None:
    config = preset("cifar10", images=50_000, image_size=32)
    encoder = build_encoder(config.encoder)
    assert (encoder.conv1.kernel_size, encoder.conv1.stride, encoder.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    assert isinstance(encoder.maxpool, torch.nn.Identity)
    head = build_head(config.head, encoder.embedding_dim)
    assert isinstance(head, torch.nn.Sequential)
    first, norm, _, last, *_ = head
    assert (first.weight.shape, last.weight.shape) == ((2048, 2048), (128, 2048))
    assert isinstance(norm, torch.nn.BatchNorm1d)


@pytest.mark.parametrize(("epochs", "rate"), [(100, 0.12), (200, 0.12), (201, 0.06), (1000, 0.06), (None, 0.06)])
def test_cifar10s_rate_follows_its_length(epochs: int | None, rate: float) -> None:
    config = preset("cifar10", images=50_000, image_size=32, epochs=epochs)
    assert config.optimiser.lr == pytest.approx(rate * 512 / 256)


def test_the_papers_numbers() -> None:
    config = preset("paper", images=50_000, image_size=32)
    assert (config.optimiser.name, config.optimiser.lr, config.optimiser.weight_decay) == ("lars", 1.0, 1e-6)
    assert (config.batch_size, config.temperature, config.epochs) == (1024, 0.5, 1000)
    assert (config.views.crop_min, config.views.colour_strength, config.views.blur_p) == (0.08, 0.5, 0.0)
    assert (config.optimiser.warmup_epochs, config.head.out) == (10, 128)


def test_the_articles_numbers() -> None:
    config = preset("article", images=50_000, image_size=32)
    assert (config.optimiser.name, config.optimiser.lr, config.optimiser.warmup_epochs) == ("lars", 0.2, 10)
    assert (config.batch_size, config.epochs, config.views.crop_min) == (128, 100, 0.8)


def test_photographs_have_the_papers_imagenet_views() -> None:
    config = preset("folder224", images=10_000, image_size=224)
    assert config.encoder.resolved_stem == "imagenet"
    assert (config.views.crop_min, config.views.colour_strength, config.views.blur_p) == (0.08, 1.0, 0.5)


def test_digits_are_not_mirrored() -> None:
    assert preset("quickstart_digits", images=1437, image_size=8).views.flip_p == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("images", "size"), KINDS)
def test_every_recipe_documents_itself_and_survives_json(name: str, images: int, size: int) -> None:
    config = preset(name, images=images, image_size=size)
    assert config.preset == name
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    documentation = PRESETS[name].__doc__ or ""
    assert "@@" not in documentation
    for line in ("Command:", "Hardware", "Measured:"):
        assert line in documentation
    assert 0 < config.optimiser.warmup_epochs < config.epochs
    assert all(4 <= view <= 1024 for view in config.view_sizes)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("epochs", [1, 5, 30])
def test_every_recipe_can_be_made_short(name: str, epochs: int) -> None:
    config = preset(name, images=1000, image_size=32, epochs=epochs)
    assert config.epochs == epochs
    assert config.optimiser.warmup_epochs < epochs


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [8, 32, 224])
def test_every_recipe_builds_and_takes_images_of_its_size(name: str, size: int) -> None:
    """On the meta device, where shapes are all that there is."""
    config = override(preset(name, images=1000, image_size=size), {"encoder.image_size": size})
    with torch.device("meta"):
        encoder = build_encoder(config.encoder, seed=None)
        head = build_head(config.head, encoder.embedding_dim)
    optimiser = build_optimiser(torch.nn.ModuleList([encoder, head]), config.optimiser)
    for view in config.view_sizes:
        z = head(encoder(torch.empty(4, 3, view, view, device="meta")))
        assert z.shape == (4, config.head.out)
    assert math.isclose(optimiser.param_groups[0]["lr"], config.optimiser.lr)


def test_an_unknown_recipe_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"preset is 'best'; accepted: quickstart"):
        preset("best", images=10, image_size=8)
