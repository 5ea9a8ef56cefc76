"""Embeddings of many images by a frozen encoder: L2-normalised, float32, just as they are served.

No autocast here: an embedding is stored and compared, and must not depend on the machine that made it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.encoder import Encoder
from training.pixels import Normalisation, normalise, to_float

_BATCH_PIXELS = 256 * 64 * 64  # per batch on the CPU, whose caches like small ones
_GPU_FACTOR = 8


@torch.inference_mode()
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
    train mode its BatchNorm would mix the images of a batch, and learn from them.
    """
    _check_frozen(encoder)
    device = next(encoder.parameters()).device
    batch = _batch_size(images.shape[1], device)
    found = np.empty((len(images), encoder.embedding_dim), dtype=np.float32)
    with tqdm(total=len(images), desc=description, unit=" images", disable=quiet) as bar:
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            h = embed_batch(encoder, to_float(pixels), normalisation)
            found[start : start + len(h)] = h.cpu().numpy()
            bar.update(len(h))
    return found


def embed_batch(encoder: nn.Module, images: Tensor, normalisation: Normalisation) -> Tensor:
    """float32 (N, 3, S, S) in [0, 1] to unit-norm float32 (N, D)."""
    inputs = normalise(images, normalisation).contiguous(memory_format=torch.channels_last)
    h: Tensor = F.normalize(encoder(inputs), dim=1)
    return h


def _check_frozen(encoder: Encoder) -> None:
    if encoder.training or not encoder.frozen:
        raise ValueError("encoder is not frozen; pass it through training.encoder.freeze first")


def _batch_size(size: int, device: torch.device) -> int:
    factor = _GPU_FACTOR if device.type == "cuda" else 1
    return int(min(1024, max(16, factor * _BATCH_PIXELS // (size * size))))
