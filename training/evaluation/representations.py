"""What is evaluated and what it is compared with: this encoder, one that learnt nothing, and the pixels themselves.

An encoder that began from ImageNet weights is compared with these too: what the run added is the difference. All
are ways from an image to a unit-norm vector, so every measurement is the same code for all of them: a bad run can't
look good beside its baselines.
"""

import logging
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.data.splits import TRAIN
from training.measures.embed import Embedder, embedder
from training.model.encoder import Encoder, build_encoder, freeze, place
from training.model.pixels import Normalisation, to_float
from training.recipe.config import EncoderConfig
from training.run.checkpoint import LoadedEncoder

logger = logging.getLogger(__name__)

THIS, BEFORE, RANDOM, PIXELS = "this encoder", "before training", "random encoder", "raw pixels"
BASELINES = (BEFORE, RANDOM, PIXELS)
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


def build_baselines(dataset: Dataset, loaded: LoadedEncoder, device: torch.device) -> list[Representation]:
    """Every baseline there is, in the order of `BASELINES`; without weights that can't be had, which is logged."""
    found = [random_encoder(loaded, device), raw_pixels(dataset)]
    if loaded.config.encoder.weights == "imagenet":
        try:
            found.insert(0, before_training(loaded, device))
        except OSError as error:
            logger.warning("%s: the encoder before training is left out of the comparison", error)
    return found


def before_training(loaded: LoadedEncoder, device: torch.device) -> Representation:
    """The encoder as the run began, with ImageNet weights. Raises OSError if they can't be fetched."""
    config = loaded.config.encoder
    try:
        encoder = build_encoder(config, seed=loaded.config.seed)
    except (OSError, RuntimeError) as error:  # no connection, or other bytes than promised
        raise OSError(f"can't fetch the ImageNet weights of {config.architecture}: {error}") from error
    return _untrained(BEFORE, encoder, config, loaded, device)


def random_encoder(loaded: LoadedEncoder, device: torch.device) -> Representation:
    """An untrained encoder of the same architecture, its weights drawn from the run's seed."""
    # A zero-initialised residual would make every block the identity: no fair baseline while frozen.
    config = replace(loaded.config.encoder, weights="random", zero_init_residual=False)
    return _untrained(RANDOM, build_encoder(config, seed=loaded.config.seed), config, loaded, device)


def raw_pixels(dataset: Dataset) -> Representation:
    """Unit-norm pixels, centred at the mean train image; images above 32 px are averaged down to 32 px first.

    The train images are read when something is first embedded, which raises OSError if one can't be read.
    """
    mean = cache(lambda: _mean_image(dataset))

    def function(images: Tensor) -> Tensor:
        return F.normalize(_flat(images) - mean(), dim=1)

    side = min(_PIXELS_SIDE, dataset.image_size)
    key = {"pixels": side, "centre": dataset.digest}
    return Representation(PIXELS, key, Embedder(function, 3 * side * side, torch.device("cpu")))


def _untrained(
    name: str, encoder: Encoder, config: EncoderConfig, loaded: LoadedEncoder, device: torch.device
) -> Representation:
    """`encoder`, built of `config`, frozen and with the run's normalisation."""
    key = {"encoder": asdict(config), "seed": loaded.config.seed, "normalisation": [loaded.mean, loaded.std]}
    return Representation(name, key, embedder(place(freeze(encoder), device), Normalisation(loaded.mean, loaded.std)))


def _flat(images: Tensor) -> Tensor:
    if images.shape[2] > _PIXELS_SIDE:
        images = F.interpolate(images, size=_PIXELS_SIDE, mode="area")
    return images.flatten(1)


def _mean_image(dataset: Dataset) -> Tensor:
    """The mean of the train images as (D,); of all, where there is none in train."""
    read, rows = RowReader(dataset.images), dataset.rows(TRAIN)
    rows = rows if len(rows) else np.arange(len(dataset))
    parts = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
    total = sum(_flat(to_float(torch.from_numpy(read(part)))).double().sum(dim=0) for part in parts)
    return torch.as_tensor(total / len(rows), dtype=torch.float32)
