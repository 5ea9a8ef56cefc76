"""What is evaluated and what it is compared with: this encoder, one that learnt nothing, and the pixels themselves.

All are ways from an image to a unit-norm vector, so every measurement is the same code for all of them: a bad run
can't look good beside its baselines. Left out: what is measured.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.checkpoint import LoadedEncoder
from training.dataset import Dataset
from training.embed import Embedder, embedder
from training.encoder import Encoder, build_encoder, freeze, place
from training.pixels import Normalisation, to_float

THIS, RANDOM, PIXELS = "this encoder", "random encoder", "raw pixels"
_PIXELS_SIDE = 32  # px; larger images are averaged down
_CHUNK = 1024


@dataclass(frozen=True)
class Representation:
    """An embedder with a name; `key` is JSON that, with the images, decides its embeddings."""

    name: str
    key: dict[str, Any]
    by: Embedder


def this_encoder(loaded: LoadedEncoder, digest: str, device: torch.device) -> Representation:
    """The checkpoint's encoder, moved to the device in place; `digest` is the checkpoint's SHA-256."""
    encoder, normalisation = place(loaded.encoder, device), Normalisation(loaded.mean, loaded.std)
    return Representation(THIS, {"checkpoint": digest}, embedder(encoder, normalisation))


def random_encoder(loaded: LoadedEncoder, device: torch.device) -> Representation:
    """An untrained encoder of the same architecture, its weights drawn from the run's seed."""
    # A zero-initialised residual would make every block the identity: no fair baseline while frozen.
    encoder = untrained(loaded, zero_init_residual=False)
    normalisation = Normalisation(loaded.mean, loaded.std)
    config = replace(loaded.config.encoder, weights="random", zero_init_residual=False)
    key = {"random": asdict(config), "seed": loaded.config.seed, "normalisation": [loaded.mean, loaded.std]}
    return Representation(RANDOM, key, embedder(place(freeze(encoder), device), normalisation))


def untrained(loaded: LoadedEncoder, *, zero_init_residual: bool) -> Encoder:
    """An encoder like the checkpoint's with random weights, on the CPU, not frozen."""
    config = replace(loaded.config.encoder, weights="random", zero_init_residual=zero_init_residual)
    return build_encoder(config, seed=loaded.config.seed)


def raw_pixels(dataset: Dataset) -> Representation:
    """Unit-norm pixels, centred at the mean image of `dataset`; images above 32 px are averaged down to 32 px first."""
    mean = torch.from_numpy(_mean_image(dataset.images))

    def function(images: Tensor) -> Tensor:
        return F.normalize(_flat(images) - mean, dim=1)

    key = {"pixels": min(_PIXELS_SIDE, dataset.image_size), "centre": dataset.digest}
    return Representation(PIXELS, key, Embedder(function, len(mean), torch.device("cpu")))


def _flat(images: Tensor) -> Tensor:
    if images.shape[2] > _PIXELS_SIDE:
        images = F.interpolate(images, size=_PIXELS_SIDE, mode="area")
    return images.flatten(1)


def _mean_image(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    total: NDArray[np.float64] | float = 0.0
    for start in range(0, len(images), _CHUNK):
        flat = _flat(to_float(torch.from_numpy(np.array(images[start : start + _CHUNK]))))
        total = total + flat.double().sum(dim=0).numpy()
    mean: NDArray[np.float32] = np.asarray(total / len(images), dtype=np.float32)
    return mean
