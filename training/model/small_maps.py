"""Convolutions of small maps as matrix products, which a CPU is faster at; the same weights, the same answer.

In the last layers of a ResNet on small images a map has 1 to 64 pixels, and many channels. oneDNN's convolutions
use a part of the CPU there, a matrix product most of it. A 1x1 kernel is one already. A 3x3 kernel on a map of at
most 2x2 pixels touches every pixel from every place, so its taps, laid out as one matrix from all pixels to all
places, have no zeros to multiply and no padding to copy.

Measured (`benchmarks.training.small_maps`: AMD EPYC, AVX512-bf16, two cores, bf16, forward and backward, 512 views,
stem "small_stride2"): ResNet-50 at 16, 24 and 32 px 1.75, 1.23 and 1.02 times as fast, ResNet-18 1.87, 1.42 and 1.33
times.

Only training uses it: an exported graph keeps plain convolutions. Convolutions with groups,
dilation or other kernels stay as they are, and so do all of them on a GPU.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The largest side of a map, in pixels, for which the product was the faster one: of a 1x1 kernel's output, of a 3x3
# kernel's input.
LARGEST_MAP = {1: 8, 3: 2}


class SmallMapConv2d(nn.Conv2d):
    """A convolution without bias that is a matrix product where its map is small."""

    def forward(self, x: Tensor) -> Tensor:
        """float (N, C, H, W) to (N, C', H', W'), both in channels_last."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[2:])
        if max((height, width) if kernel == 1 else x.shape[2:]) > LARGEST_MAP[kernel]:
            return super().forward(x)
        weight = self.weight.permute(0, 2, 3, 1)
        if kernel == 1:
            pixels = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1).reshape(-1, x.shape[1])
            product = F.linear(pixels, weight.flatten(1))
        else:
            taps: Tensor = _Taps.apply(_as_autocast_has_it(weight), (x.shape[2], x.shape[3]), stride)
            product = F.linear(x.permute(0, 2, 3, 1).reshape(len(x), -1), taps)
        return product.view(len(x), height, width, self.out_channels).permute(0, 3, 1, 2)


def use_small_maps(model: nn.Module) -> nn.Module:
    """Let every convolution of `model` that can be one be a `SmallMapConv2d`, in place; returns the model."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _fits(module):
            module.__class__ = SmallMapConv2d
    return model


def _fits(convolution: nn.Conv2d) -> bool:
    kernel = convolution.kernel_size[0]
    padded = convolution.padding == (kernel // 2, kernel // 2)
    plain = convolution.groups == 1 and convolution.dilation == (1, 1) and convolution.bias is None
    return plain and padded and convolution.kernel_size in ((1, 1), (3, 3))


def _as_autocast_has_it(weight: Tensor) -> Tensor:
    """Rounded before its taps are copied, which halves what the copies move."""
    return weight.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else weight


class _Taps(torch.autograd.Function):
    """A 3x3 kernel (C', 3, 3, C) as the matrix (H' W' C', H W C) that it is on a map of at most 2x2 pixels.

    A function of its own for its backward pass: autograd would make a whole kernel of zeros for every slice.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, size: tuple[int, int], stride: int) -> Tensor:
        ctx.shape, ctx.size, ctx.stride = weight.shape, size, stride
        return torch.cat([weight[:, rows, columns].flatten(1) for rows, columns in _places(size, stride)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        total = gradient.new_zeros(ctx.shape)
        places = _places(ctx.size, ctx.stride)
        parts = gradient.view(len(places), ctx.shape[0], *ctx.size, ctx.shape[3])
        for part, (rows, columns) in zip(parts, places, strict=True):
            total[:, rows, columns] += part
        return total, None, None


def _places(size: tuple[int, int], stride: int) -> list[tuple[slice, slice]]:
    """The rows and columns of the kernel that lie on the map, for each place of the output."""
    rows, columns = ([slice(1 - start, 1 - start + side) for start in range(0, side, stride)] for side in size)
    return [(row, column) for row in rows for column in columns]
