"""What an encoder is worth, by one code for every side: weighted kNN and a linear probe on the test images.

Training images are subsampled, for embedding them all takes longer than a short benchmark trains. Regularisation
is chosen on validation images; the test images are looked at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.splits import TEST, TRAIN, VALIDATION
from training.evaluation.label_splits import LabelSplits, fit_and_test
from training.measures.embed import embed_all, embedder
from training.measures.knn import weighted_accuracy
from training.model.encoder import Encoder, freeze
from training.model.pixels import Normalisation


@dataclass(frozen=True)
class Rows:
    """The rows that every side is scored on: int64, ascending."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def choose_rows(data: Dataset, most: int, *, seed: int = 0) -> Rows:
    """All test images, and at most `most` training images (0: all), drawn from train and validation alike.

    Raises ValueError if the set has no labels or no test images.
    """
    data.labels_of([])
    if not len(data.rows(TEST)):
        raise ValueError(f"{data.folder} has no test images; a benchmark of accuracy needs some")
    parts = [data.rows(TRAIN), data.rows(VALIDATION)]
    share = min(1.0, most / sum(map(len, parts))) if most else 1.0
    rng = np.random.default_rng(seed)
    train, validation = (np.sort(rng.permutation(part)[: round(share * len(part))]) for part in parts)
    return Rows(train, validation, data.rows(TEST))


def score(encoder: Encoder, normalisation: Normalisation, data: Dataset, rows: Rows, *, name: str) -> dict[str, float]:
    """Freeze `encoder` and score it: "linear_accuracy" and "knn_accuracy" (k=200, T=0.1), shares in [0, 1]."""
    chosen = np.concatenate([rows.train, rows.validation, rows.test])
    by = embedder(freeze(encoder), normalisation)
    h = embed_all(by, data.images, rows=chosen, description=f"embedding, {name}")
    assert data.classes is not None
    ends = np.cumsum([len(rows.train), len(rows.validation)])
    splits = LabelSplits(tuple(data.classes), data.labels_of(chosen), *np.split(np.arange(len(chosen)), ends))
    return {
        "linear_accuracy": fit_and_test(h, splits)[1],
        "knn_accuracy": weighted_accuracy(splits.labelled(h, splits.known), splits.labelled(h, splits.test)),
    }
