"""Stems, heads, initial weights, and freezing that holds."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from training.model.device import choose_precision
from training.model.encoder import build_encoder, build_head, freeze
from training.recipe.config import EncoderConfig, HeadConfig, HeadKind, Stem


@pytest.mark.parametrize(
    ("stem", "size", "side", "kernel"),
    [
        ("auto", 32, 32, 3),
        ("auto", 96, 24, 7),
        ("small", 96, 96, 3),
        ("small_stride2", 32, 16, 3),
        ("imagenet", 32, 8, 7),
    ],
)
def test_stems(stem: Stem, size: int, side: int, kernel: int) -> None:
    encoder = build_encoder(EncoderConfig("resnet18", stem, size))
    reached: list[torch.Size] = []
    encoder.layer1.register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0].shape))
    h = encoder(torch.zeros(2, 3, size, size))
    assert encoder.conv1.kernel_size == (kernel, kernel)
    assert reached[0][2:] == (side, side)
    assert h.shape == (2, encoder.embedding_dim) == (2, 512)


def test_resnet50_is_torchvisions_but_for_the_classifier() -> None:
    config = EncoderConfig("resnet50", "imagenet", 64, zero_init_residual=True)
    encoder = build_encoder(config, seed=3)
    assert encoder.embedding_dim == 2048
    theirs = torchvision.models.resnet50()
    theirs.load_state_dict(encoder.state_dict(), strict=False)
    theirs.fc = nn.Identity()
    image = torch.rand(2, 3, 64, 64)
    assert torch.equal(freeze(encoder)(image), theirs.eval()(image))
    assert encoder.layer1[0].bn3.weight.abs().sum() == 0


def test_first_weights_follow_the_seed_and_leave_the_callers_generator_alone() -> None:
    config = EncoderConfig("resnet18", image_size=8)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, same, other = (build_encoder(config, seed=seed).conv1.weight for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_frozen_encoder_stays_frozen_under_a_parent_in_train_mode() -> None:
    encoder = freeze(build_encoder(EncoderConfig("resnet18", image_size=8)))
    parent = nn.Sequential(encoder, nn.Linear(512, 2)).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in parent.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        parent(torch.rand(4, 3, 8, 8)).sum().backward()
        optimiser.step()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_heads() -> None:
    h = torch.rand(4, 10)
    mlp = build_head(HeadConfig("mlp", 6, 3), 10)
    assert isinstance(mlp, nn.Sequential)
    assert [type(layer).__name__ for layer in mlp] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert "0.bias" not in mlp.state_dict()
    assert mlp(h).shape == (4, 3)
    linear = build_head(HeadConfig("linear", out=5), 10)
    assert linear(h).shape == (4, 5)
    assert torch.equal(build_head(HeadConfig("none"), 10)(h), h)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_imagenet_weights(stem: Stem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where torchvision would put its download stands in for it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    file = tmp_path / "hub/checkpoints" / Path(weights.url).name
    file.parent.mkdir(parents=True)
    stand_in = torchvision.models.resnet18().state_dict()
    torch.save(stand_in, file)
    encoder = build_encoder(EncoderConfig("resnet18", stem, 32, weights="imagenet"))
    for name, value in encoder.state_dict().items():
        if name != "conv1.weight":
            assert torch.equal(value, stand_in[name])
    assert (encoder.conv1.weight.shape == stand_in["conv1.weight"].shape) == (stem == "imagenet")


def test_the_head_centres_projections_when_it_ends_in_a_norm() -> None:
    noise = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    h = noise * 0.1 + 3  # nearly parallel, as a fresh encoder's are
    kinds: tuple[HeadKind, ...] = ("mlp", "linear")
    for kind in kinds:
        z = build_head(HeadConfig(kind, 32, 16), 512)(h)
        torch.testing.assert_close(z.mean(0), torch.zeros(16), atol=1e-4, rtol=0)
        plain = build_head(HeadConfig(kind, 32, 16, norm_out=False), 512)(h)
        assert plain.mean(0).abs().max().item() > 1e-2


def test_bf16_is_avoided_on_a_cpu_where_the_last_strided_convolution_reads_one_pixel() -> None:
    cpu = torch.device("cpu")
    one_pixel = EncoderConfig(stem="small_stride2", image_size=8)
    assert choose_precision("auto", cpu, one_pixel) == "fp32"
    assert choose_precision("fp32", cpu, one_pixel) == "fp32"
    with pytest.raises(ValueError, match="1x1 before the last strided convolution"):
        choose_precision("bf16", cpu, one_pixel)
    for encoder in (EncoderConfig(stem="small", image_size=8), EncoderConfig(stem="imagenet", image_size=32)):
        assert encoder.smallest_strided_map == 2
        assert choose_precision("bf16", cpu, encoder) == "bf16"
