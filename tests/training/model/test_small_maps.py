"""Convolutions as matrix products against PyTorch's own, in float64, forward and backward."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.model.encoder import build_encoder
from training.model.small_maps import LARGEST_MAP, SmallMapConv2d, use_small_maps
from training.recipe.config import EncoderConfig


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 3), (4, 4), (3, 2), (5, 8)])
def test_output_and_gradients_are_those_of_the_convolution(kernel: int, stride: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 7, kernel, stride, padding=kernel // 2, bias=False).double()
    ours = use_small_maps(copy.deepcopy(plain))
    x = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [plain(inputs[0]), ours(inputs[1])]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-12)
    cotangent = torch.randn_like(outputs[0])
    weights: list[torch.Tensor] = [plain.weight, next(ours.parameters())]
    expected, found = (
        torch.autograd.grad(y, (x, weight), cotangent) for y, x, weight in zip(outputs, inputs, weights, strict=True)
    )
    for ours_, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours_, theirs, rtol=0, atol=1e-12)


def test_small_maps_take_no_convolution_and_large_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original: Callable[..., torch.Tensor] = nn.Conv2d._conv_forward

    def counted(self: nn.Conv2d, x: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(x.shape[2])
        return original(self, x, *rest)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", counted)
    layer = use_small_maps(nn.Conv2d(4, 4, 3, padding=1, bias=False))
    layer(torch.zeros(1, 4, LARGEST_MAP[3], LARGEST_MAP[3]))
    assert calls == []
    layer(torch.zeros(1, 4, LARGEST_MAP[3] + 1, LARGEST_MAP[3] + 1))
    assert calls == [LARGEST_MAP[3] + 1]


def test_others_stay_as_they_are() -> None:
    layers = nn.ModuleList(
        [
            nn.Conv2d(4, 4, 3, padding=1, bias=False, groups=2),
            nn.Conv2d(4, 4, 3, padding=2, bias=False, dilation=2),
            nn.Conv2d(4, 4, 7, padding=3, bias=False),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, bias=False),
        ]
    )
    use_small_maps(layers)
    assert not any(isinstance(layer, SmallMapConv2d) for layer in layers)


def test_a_whole_encoder_answers_alike_and_keeps_its_names() -> None:
    config = EncoderConfig("resnet50", "small_stride2", 16, zero_init_residual=False)
    plain = build_encoder(config).eval()
    ours = use_small_maps(build_encoder(config)).eval()
    assert ours.state_dict().keys() == plain.state_dict().keys()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), plain(images), rtol=1e-4, atol=1e-4)
