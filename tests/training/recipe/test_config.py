"""Configurations to JSON and back, overrides, resolutions by step, and errors that name the key."""

import json

import pytest

from training.recipe.config import (
    EncoderConfig,
    PretrainConfig,
    Resolution,
    differing_keys,
    from_dict,
    override,
    to_dict,
)


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
        ({"epochs": "many"}, "epochs is 'many'; accepted: whole numbers from 1 to 1000000"),
        ({"epochs": "2.5"}, "epochs is 2.5; accepted: whole numbers"),
        ({"head.kind": "deep"}, "head.kind is 'deep'; accepted: mlp, linear, none"),
        ({"encoder.architecture": "vit_b_16"}, "encoder.architecture is 'vit_b_16'; accepted: resnet18"),
        ({"temperature": "0"}, "temperature is 0; accepted: numbers from 0.001 to 100"),
        (
            {"views.crop_min": 0.9, "views.crop_max": 0.5},
            "views.crop_max is 0.5; accepted: numbers from views.crop_min, 0.9, to 1",
        ),
        ({"epochs": "5"}, "warmup_epochs is 10.0; it must be less than epochs, which is 5"),
        ({"optimiser.lr": "NaN"}, "optimiser.lr is nan"),
        ({"loss": "infonce"}, "loss is 'infonce'; accepted: nt_xent, dcl"),
        ({"chunk_size": "-1"}, "chunk_size is -1; accepted: whole numbers from 0 to"),
        ({"chunk_size": "2.5"}, "chunk_size is 2.5; accepted: whole numbers"),
        ({"views.count": "1"}, "views.count is 1; accepted: whole numbers from 2 to 64"),
        ({"epochs": "true"}, "epochs is True; accepted: whole numbers"),
        ({"resolutions": "[[8, 0.5], [16, 0.4]]"}, "resolutions has shares that sum to 0.9; they must sum to 1"),
        ({"resolutions": "[[2, 1.0]]"}, r"resolutions\[0\].size is 2; accepted: whole numbers from 4 to 1024"),
        ({"resolutions": "[[8, 1.5], [16, -0.5]]"}, r"resolutions\[0\].share is 1.5; accepted: numbers from 0 to 1"),
        ({"resolutions": '[[8, "half"]]'}, r"resolutions\[0\].share is 'half'; accepted: numbers from 0 to 1"),
        ({"resolutions": "[[8, 0.5], [8.5, 0.5]]"}, r"resolutions\[1\].size is 8.5; accepted: whole numbers"),
        (
            {"resolutions": '[{"size": 8, "share": 1, "part": 1}]'},
            r"unknown key 'resolutions\[0\].part'; known keys: size, share",
        ),
        (
            {"resolutions": "[[8, 0.5, 1]]"},
            r"resolutions\[0\] is \[8, 0.5, 1\]; accepted: a mapping with the keys size, share",
        ),
        ({"resolutions": "8"}, "resolutions is 8; accepted: a list"),
        ({"resolutions[0].size": "8"}, r"unknown key 'resolutions\[0\].size'"),
        ({"optimiser.lr.peak": "8"}, "unknown key 'optimiser.lr.peak'"),
    ],
)
def test_errors_name_key_value_and_range(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(PretrainConfig(), changes)


def test_an_unknown_key_in_json_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'views.crops'"):
        from_dict({"views": {"crops": 2}})
    with pytest.raises(ValueError, match=r"views is 3; accepted: a mapping with the keys count, crop_min"):
        from_dict({"views": 3})


STAGES = "[[16, 0.55], [24, 0.25], [32, 0.2]]"


@pytest.mark.parametrize("text", [STAGES, '[{"size": 16, "share": 0.55}, [24, 0.25], {"share": 0.2, "size": 32}]'])
def test_resolutions_are_written_short_or_long(text: str) -> None:
    config = override(PretrainConfig(), {"resolutions": text})
    assert config.resolutions == (Resolution(16, 0.55), Resolution(24, 0.25), Resolution(32, 0.2))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert override(config, {"resolutions": []}) == PretrainConfig()
    assert differing_keys(config, override(config, {"resolutions": text})) == {}
    assert list(differing_keys(config, PretrainConfig())) == ["resolutions"]


def test_the_size_of_views_changes_where_the_shares_say() -> None:
    config = override(PretrainConfig(), {"resolutions": STAGES})
    sizes = [config.view_size(step, total=100) for step in range(100)]
    assert sizes == [16] * 55 + [24] * 25 + [32] * 20
    assert [config.view_size(step, total=7) for step in range(7)] == [16] * 4 + [24] * 2 + [32]  # 3.85, 5.6
    assert config.view_size(0, total=1) == 16
    assert config.view_sizes == (16, 24, 32)


def test_shares_that_only_nearly_sum_to_one_leave_no_step_without_a_size() -> None:
    config = override(PretrainConfig(), {"resolutions": [[4 + k, 0.1] for k in range(10)]})
    sizes = [config.view_size(step, total=1000) for step in range(1000)]
    assert sizes == [4 + step // 100 for step in range(1000)]


def test_without_resolutions_views_have_the_images_size() -> None:
    config = PretrainConfig(encoder=EncoderConfig(image_size=40))
    assert {config.view_size(step, total=10) for step in range(10)} == {40}
    none_of_the_first = override(config, {"resolutions": [[8, 0.0], [12, 1.0]]})
    assert {none_of_the_first.view_size(step, total=10) for step in range(10)} == {12}


def test_everything_goes_to_json_and_back() -> None:
    changes = {"loss": "dcl", "chunk_size": 64, "views.count": 4, "steps": 30, "precision": "bf16", "head.kind": "none"}
    config = override(PretrainConfig(), changes | {"resolutions": STAGES, "encoder.weights": "imagenet"})
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert set(differing_keys(config, PretrainConfig())) == {*changes, "resolutions", "encoder.weights"}
