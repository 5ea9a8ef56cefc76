"""Signals while a run trains: some images, embedded now and then, and a warning in plain words.

Alignment, uniformity, spread and RankMe need no labels; online kNN is measured where there are some. Nothing here
changes the run: the encoder is in eval mode meanwhile, and no random number of the run is drawn. The images looked at
are validation's, which pretraining sees without labels; test images are left alone where there are enough others.
Nothing is decided by them: an encoder is judged by `training.evaluation.evaluate`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.data.splits import TEST, TRAIN, VALIDATION
from training.measures.embed import embed
from training.measures.knn import weighted_accuracy
from training.measures.label_free import alignment, label_free_signals
from training.model.encoder import Encoder
from training.model.pixels import Normalisation
from training.recipe.config import ViewsConfig

QUERIES_MOST, MEMORY_MOST, ALIGNED_MOST = 1000, 4000, 250  # images: seconds on two cores, not minutes
_ENOUGH = 20
SPREAD_LEAST, RANKME_LEAST = 0.1, 3.0
ALIGNMENT_BY_CHANCE = 1.8  # 2 is expected of any two images, evenly spread; the most there can be is 4


class Monitor:
    """Measures an encoder on a fixed sample of `dataset`, drawn once from a seed of its own."""

    def __init__(self, dataset: Dataset, normalisation: Normalisation, views: ViewsConfig) -> None:
        self._dataset, self._normalisation, self._views = dataset, normalisation, views
        self._read = RowReader(dataset.images)
        rng = np.random.default_rng(0)
        candidates = _validation_or_more(dataset)
        few = min(_ENOUGH, len(dataset) // 2)
        most = min(QUERIES_MOST, max(2, few, len(dataset) // 4))  # of few images, too, leave some to be neighbours
        self._queries = np.sort(rng.permutation(candidates)[:most])
        others = np.setdiff1d(dataset.rows(TRAIN), self._queries)
        self._memory = np.sort(rng.permutation(others)[:MEMORY_MOST])
        self._aligned = np.sort(rng.permutation(self._queries)[:ALIGNED_MOST])

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """ "alignment", "uniformity", "spread", "rankme"; with labels also "knn", a share (k=200, T=0.1).

        Nothing if an embedding is not finite.
        """
        with _evaluating(encoder):
            h = self._embed(encoder, self._queries)
            if not np.isfinite(h).all():
                return {}  # the next loss, or the checkpoint, says what is wrong with the run
            signals = label_free_signals(h)
            few = self._read(self._aligned)
            signals["alignment"] = alignment(encoder, few, self._normalisation, views=self._views)
            if self._dataset.labels is not None and len(self._memory):
                known = self._embed(encoder, self._memory)
                labels = self._dataset.labels_of
                signals["knn"] = weighted_accuracy((known, labels(self._memory)), (h, labels(self._queries)))
        return {name: round(value, 5) for name, value in signals.items()}

    def warnings(self, signals: dict[str, float]) -> list[str]:
        """What signals that were measured here say, in words."""
        return warnings(signals, len(self._queries))

    def _embed(self, encoder: Encoder, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return embed(encoder, self._read(rows), self._normalisation, quiet=True)


def warnings(signals: dict[str, float], count: int) -> list[str]:
    """What signals of `count` images say that a user should know, in plain words; usually nothing."""
    found = []
    if signals["spread"] < SPREAD_LEAST:
        found.append(
            f"the embeddings have collapsed: all images get nearly the same one (spread {signals['spread']:.3f}, "
            f"healthy is above {SPREAD_LEAST}). Try a lower --lr, a larger --batch-size or a higher --temperature"
        )
    elif signals["rankme"] < min(RANKME_LEAST, count / 4):
        found.append(
            f"the embeddings use {signals['rankme']:.1f} dimensions only (RankMe; healthy is tens and more): "
            "dimensional collapse. Try --head mlp, stronger views or a lower --lr"
        )
    if signals["alignment"] > ALIGNMENT_BY_CHANCE:
        found.append(
            f"two views of an image are as far apart as two images (alignment {signals['alignment']:.2f}, by chance "
            "2): nothing is learnt. Try gentler views (--set views.crop_min=0.5) or another --lr"
        )
    return found


def _validation_or_more(dataset: Dataset) -> NDArray[np.int64]:
    """Rows of validation; with train, if these are too few; else of all."""
    for splits in ((VALIDATION,), (VALIDATION, TRAIN)):
        rows = dataset.rows(*splits)
        if len(rows) >= _ENOUGH:
            return rows
    return dataset.rows(VALIDATION, TEST, TRAIN)


@contextmanager
def _evaluating(encoder: Encoder) -> Iterator[None]:
    """Frozen for the block, as far as BatchNorm goes; trainable again after it."""
    frozen, modes = encoder.frozen, [(module, module.training) for module in encoder.modules()]
    encoder.frozen = True
    encoder.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        encoder.frozen = frozen
        for module, training in modes:
            module.training = training
