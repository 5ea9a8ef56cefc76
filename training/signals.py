"""Signals that need no labels: alignment, uniformity and spread (Wang and Isola 2020, arXiv 2005.10242).

All are of unit-norm embeddings h. A collapsed encoder, which gives every image the same embedding, shows as a
uniformity near 0 and a spread near 0.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import views_generator
from training.config import ViewsConfig
from training.embed import embed_batch
from training.encoder import Encoder
from training.pixels import Normalisation
from training.views import two_views

_BATCH = 128


def uniformity(h: NDArray[np.float32]) -> float:
    """log of the mean of exp(-2 |h_i - h_j|^2) over all pairs of (N, D); 0 is collapse, lower is better."""
    squared = 2 - 2 * (h @ h.T)[np.triu_indices(len(h), 1)]
    return float(np.log(np.mean(np.exp(-2 * squared))))


def spread(h: NDArray[np.float32]) -> float:
    """sqrt(D) times the mean standard deviation of a dimension of (N, D); 1 is uniform, 0 is collapse."""
    return float(h.std(axis=0).mean() * np.sqrt(h.shape[1]))


@torch.inference_mode()
def alignment(
    encoder: Encoder, images: NDArray[np.uint8], normalisation: Normalisation, *, views: ViewsConfig
) -> float:
    """The mean of |h(view) - h(other view)|^2 over images (N, S, S, 3); 0 is perfect invariance."""
    device = next(encoder.parameters()).device
    distances = []
    for number, start in enumerate(range(0, len(images), _BATCH)):
        pixels = torch.from_numpy(np.array(images[start : start + _BATCH])).to(device)
        first, second = (
            embed_batch(encoder, view, normalisation) for view in two_views(pixels, views, views_generator(0, number))
        )
        distances.append((first - second).square().sum(dim=1).cpu())
    return float(torch.cat(distances).mean())
