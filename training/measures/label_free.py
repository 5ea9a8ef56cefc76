"""Signals that need no labels: alignment, uniformity and spread (Wang and Isola 2020, arXiv 2005.10242), and
RankMe (Garrido et al. 2023, arXiv 2210.02885).

All are of unit-norm embeddings h. A collapsed encoder, which gives every image the same embedding, shows as a
uniformity and a spread near 0; one that uses a few dimensions only, as a RankMe of that few.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.row_reader import RowReader
from training.measures.embed import Embedder, embed_batch, full_precision
from training.model.encoder import Encoder
from training.model.pixels import Normalisation
from training.model.views import random_views, views_generator
from training.recipe.config import ViewsConfig

_BATCH = 128
_TINY = 1e-7


def label_free_signals(h: NDArray[np.float32]) -> dict[str, float]:
    """ "uniformity", "spread" and "rankme" of unit-norm embeddings (N, D), N at least 2."""
    return {"uniformity": uniformity(h), "spread": spread(h), "rankme": rankme(h)}


def uniformity(h: NDArray[np.float32]) -> float:
    """log of the mean of exp(-2 |h_i - h_j|^2) over all pairs of (N, D); 0 is collapse, lower is better."""
    squared = 2 - 2 * (h @ h.T)[np.triu_indices(len(h), 1)]
    return float(np.log(np.mean(np.exp(-2 * squared))))


def spread(h: NDArray[np.float32]) -> float:
    """sqrt(D) times the mean standard deviation of a dimension of (N, D); 1 is uniform, 0 is collapse."""
    return float(h.std(axis=0).mean() * np.sqrt(h.shape[1]))


def rankme(h: NDArray[np.float32]) -> float:
    """exp of the entropy of the singular values' shares (equation 1): how many dimensions (N, D) takes up.

    Between 1 and min(N, D); it grows with N, so compare it at equal N only.
    """
    values = np.linalg.svd(h.astype(np.float64), compute_uv=False)
    shares = values / values.sum() + _TINY
    return float(np.exp(-(shares * np.log(shares)).sum()))


def alignment(
    encoder: Encoder, images: NDArray[np.uint8], normalisation: Normalisation, *, views: ViewsConfig
) -> float:
    """The mean of |h(view) - h(other view)|^2 over images (N, S, S, 3), of 0 to 4; 0 is perfect invariance."""
    device = next(encoder.parameters()).device
    by = Embedder(lambda view: embed_batch(encoder, view, normalisation), encoder.embedding_dim, device)
    return alignment_by(by, images, views=views)


@torch.inference_mode()
def alignment_by(by: Embedder, images: NDArray[np.uint8], *, views: ViewsConfig) -> float:
    """The same for anything that embeds."""
    read, rows, distances = RowReader(images), np.arange(len(images)), []
    pair = replace(views, count=2)  # of more views the first two would be the same
    with full_precision(by.device):
        for number, start in enumerate(range(0, len(images), _BATCH)):
            pixels = torch.from_numpy(read(rows[start : start + _BATCH])).to(by.device)
            first, second = map(by.function, random_views(pixels, pair, views_generator(0, number)))
            distances.append((first - second).square().sum(dim=1).cpu())
    return float(torch.cat(distances).mean())
