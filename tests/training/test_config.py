"""Configurations to JSON and back, overrides, errors; and that every preset is one."""

import json

import pytest

from training.config import PretrainConfig, differing_keys, from_dict, override, to_dict
from training.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("images", "size"), [(18, 8), (1437, 8), (50_000, 32), (10_000, 224)])
def test_presets_survive_json_and_document_themselves(name: str, images: int, size: int) -> None:
    config = preset(name, images=images, image_size=size)
    assert config.preset == name
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert "Command:" in (PRESETS[name].__doc__ or "")


def test_the_articles_numbers() -> None:
    config = preset("article", images=50_000, image_size=32)
    assert (config.optimiser.name, config.optimiser.lr, config.optimiser.warmup_epochs) == ("lars", 0.2, 10)
    assert (config.batch_size, config.epochs, config.views.crop_min) == (128, 100, 0.8)


def test_digits_are_not_mirrored() -> None:
    assert preset("quickstart_digits", images=1437, image_size=8).views.flip_p == 0


def test_overrides_are_typed_and_apply_together() -> None:
    config = override(
        PretrainConfig(),
        {"optimiser.lr": "1", "epochs": "3", "optimiser.warmup_epochs": 0.5, "head.kind": "none"},
    )
    assert (config.optimiser.lr, config.epochs, config.head.kind) == (1.0, 3, "none")
    assert type(config.optimiser.lr) is float
    assert set(differing_keys(PretrainConfig(), config)) == {
        "optimiser.lr",
        "epochs",
        "optimiser.warmup_epochs",
        "head.kind",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer.lr": "1"}, "unknown key 'optimizer.lr'; known keys: .*optimiser.lr"),
        ({"encoder": "resnet50"}, "unknown key 'encoder'"),
        ({"epochs": "many"}, "epochs is 'many'; a value of type int"),
        ({"epochs": "2.5"}, "epochs is 2.5; a value of type int"),
        ({"head.kind": "deep"}, "head.kind is 'deep'; accepted: mlp, linear, none"),
        ({"encoder.architecture": "vit_b_16"}, "encoder.architecture is 'vit_b_16'; accepted: resnet18"),
        ({"temperature": "0"}, "temperature is 0.0; accepted: 0.001 to 100"),
        ({"views.crop_min": 0.9, "views.crop_max": 0.5}, "views.crop_max is 0.5; accepted: 0.9 to 1"),
        ({"epochs": "5"}, "warmup_epochs is 10.0; it must be less than epochs, which is 5"),
        ({"optimiser.lr": "NaN"}, "optimiser.lr is nan"),
    ],
)
def test_errors_name_key_value_and_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(PretrainConfig(), changes)


def test_an_unknown_key_in_json_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'views.crops'"):
        from_dict({"views": {"crops": 2}})
    with pytest.raises(ValueError, match=r"preset is 'best'; accepted: quickstart"):
        preset("best", images=10, image_size=8)
