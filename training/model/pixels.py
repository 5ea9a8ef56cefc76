"""uint8 images to normalised float tensors, and the channel statistics that normalise them.

The one place where the scale [0, 1] and (x - mean) / std are written down for training; the exported graph
holds the same arithmetic.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.row_reader import RowReader

_CHUNK = 4096


class Normalisation(NamedTuple):
    """Mean and standard deviation of each RGB channel, of pixels scaled to [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f"images is {images.dtype} of shape {tuple(images.shape)}; uint8 of shape (N, H, W, 3) is needed"
        )
    return images.permute(0, 3, 1, 2).to(torch.float32) / 255


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """(N, 3, H, W) float in [0, 1] to (x - mean) / std by channel, the same shape and type."""
    # Filled in where the images are: a tensor copied to a GPU would wait for it.
    mean, std = (
        torch.cat([images.new_full((1, 1, 1, 1), value) for value in values], dim=1) for values in normalisation
    )
    return (images - mean) / std


def channel_statistics(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> Normalisation:
    """Mean and std of each channel over `images[rows]`, of shape (N, H, W, 3); exact, in bounded memory.

    A channel that hardly varies gets a std of 1/255, so that dividing by it stays finite.
    """
    counts, read = np.zeros((3, 256), dtype=np.int64), RowReader(images)
    for start in range(0, len(rows), _CHUNK):
        pixels = read(np.sort(rows[start : start + _CHUNK])).reshape(-1, 3)
        counts += np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(3)])
    levels = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt(np.maximum((weights * (levels - mean[:, None]) ** 2).sum(axis=1), 0))
    return Normalisation(_triple(mean), _triple(np.maximum(std, 1 / 255)))


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
