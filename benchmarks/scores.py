"""What an encoder is worth, by one code for every side: weighted kNN and a linear probe on the test images.

Training images are subsampled, for embedding them all takes longer than a short benchmark trains. Regularisation
is chosen on validation images; the test images are looked at once. Left out: anything without labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset import Dataset
from training.embed import embed
from training.encoder import Encoder, freeze
from training.folders import TEST, TRAIN, VALIDATION
from training.knn import weighted_accuracy
from training.pixels import Normalisation
from training.probe import accuracy, fit_probe

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


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
    freeze(encoder)

    def embedded(part: NDArray[np.int64], which: str) -> Labelled:
        h = embed(encoder, data.images[part], normalisation, description=f"embedding {which}, {name}")
        return h, data.labels_of(part)

    train, validation = embedded(rows.train, "train"), embedded(rows.validation, "validation")
    test = embedded(rows.test, "test")
    assert data.classes is not None
    fit = fit_probe(train, validation, data.classes)
    memory = np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])
    return {
        "linear_accuracy": accuracy(fit.probe, test[0], [data.classes[code] for code in test[1]]),
        "knn_accuracy": weighted_accuracy(memory, test),
    }
