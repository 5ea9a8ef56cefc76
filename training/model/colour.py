"""Brightness, contrast, saturation and hue of a batch, each image by its own factor.

The definitions are torchvision's (transforms.v2.functional on float images), to the last clamp. Every
operation takes float (N, 3, H, W) in [0, 1] and factors (N, 1, 1, 1), and returns a new tensor of the same
shape and range.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.2989, 0.587, 0.114)


def grey(images: Tensor) -> Tensor:
    """(N, 3, H, W) to luma, (N, 1, H, W)."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Towards black: 0 is black, 1 leaves the image."""
    return (images * factor).clamp(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Towards the image's mean grey: 0 is flat grey, 1 leaves the image."""
    return _blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Towards the grey image: 0 is grey, 1 leaves the image."""
    return _blend(images, grey(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by `turn` of the colour circle, in [-0.5, 0.5]; 0 leaves the image.

    With v the largest channel and c the spread, a channel is v - c * clamp(min(k, 4 - k), 0, 1), where k is
    its place (5, 3, 1 for red, green, blue) plus six times the hue, modulo 6.
    """
    value, low = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = value - low
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    safe = torch.where(spread > 0, spread, 1)
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    place = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    k = (place + sector + 6 * turn).remainder(6)
    return value - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp(0, 1)


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (brightness, contrast, saturation, hue)
