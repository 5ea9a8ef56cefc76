"""Embeddings of many images: L2-normalised, float32, just as they are served.

No autocast and no TF32 here: an embedding is stored and compared, and must not depend on the machine that made it.
On the CPU convolutions stay as they are: without a backward pass `training.model.small_maps` was slower
(docs/decisions.md).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.data.row_reader import RowReader
from training.model.encoder import Encoder
from training.model.pixels import Normalisation, normalise, to_float
from training.model.views import Draws, apply

_CPU_PIXELS = 32 * 32 * 32  # a batch: its maps then stay in the caches (32 px: 1.5 times as fast as 512 at a time)
_GPU_PIXELS = 2048 * 64 * 64


@dataclass(frozen=True)
class Embedder:
    """A way from float32 (N, 3, S, S) in [0, 1] to unit-norm float32 (N, `dim`), on `device`."""

    function: Callable[[Tensor], Tensor]
    dim: int
    device: torch.device


def embed(
    encoder: Encoder,
    images: NDArray[np.uint8],
    normalisation: Normalisation,
    *,
    description: str = "embedding",
    quiet: bool = False,
) -> NDArray[np.float32]:
    """uint8 (N, S, S, 3) to unit-norm float32 (N, D), on the encoder's device; rows in order.

    `images` may be a memory map; `quiet` shows no progress bar. Raises ValueError if the encoder is not frozen: in
    train mode its BatchNorm would mix the images of a batch, and learn from them. OSError: an image can't be read.
    """
    return embed_all(embedder(encoder, normalisation), images, description=None if quiet else description)


def embedder(encoder: Encoder, normalisation: Normalisation) -> Embedder:
    """A frozen encoder as an `Embedder`, on its own device. Raises ValueError if it is not frozen."""
    if encoder.training or not encoder.frozen:
        raise ValueError("encoder is not frozen; pass it through training.model.encoder.freeze first")
    device = next(encoder.parameters()).device
    return Embedder(lambda images: embed_batch(encoder, images, normalisation), encoder.embedding_dim, device)


@torch.inference_mode()
def embed_all(
    by: Embedder,
    images: NDArray[np.uint8],
    *,
    rows: NDArray[np.int64] | None = None,
    draws: Draws | None = None,
    description: str | None = "embedding",
) -> NDArray[np.float32]:
    """Unit-norm float32 (M, D) of `images[rows]`, uint8 (N, S, S, 3), M = N without `rows`; in order.

    With `draws`, one for each of the M, their views are embedded instead. Without `description` there is no
    progress bar. Raises OSError if an image can't be read.
    """
    read, rows = RowReader(images), np.arange(len(images)) if rows is None else rows
    batch = _batch_size(images.shape[1], by.device)
    found = np.empty((len(rows), by.dim), dtype=np.float32)
    bar = tqdm(total=len(rows), desc=description, unit=" images", disable=description is None)
    with bar, full_precision(by.device):
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            pixels = to_float(torch.from_numpy(read(rows[part])).to(by.device))
            h = by.function(pixels if draws is None else apply(pixels, draws.rows(part)))
            found[part] = h.cpu().numpy()
            bar.update(len(h))
    return found


def embed_batch(encoder: nn.Module, images: Tensor, normalisation: Normalisation) -> Tensor:
    """float32 (N, 3, S, S) in [0, 1] to unit-norm float32 (N, D)."""
    inputs = normalise(images, normalisation).contiguous(memory_format=torch.channels_last)
    h: Tensor = F.normalize(encoder(inputs), dim=1)
    return h


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Convolutions in real fp32 within the block: on CUDA they are TF32 by default. On the CPU it does nothing."""
    if device.type != "cuda":
        yield
        return
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def _batch_size(size: int, device: torch.device) -> int:
    pixels = _GPU_PIXELS if device.type == "cuda" else _CPU_PIXELS
    return int(min(1024, max(16, pixels // (size * size))))
