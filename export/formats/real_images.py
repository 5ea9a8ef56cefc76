"""The real images that quantisation is calibrated on and every approximate file is judged by.

Calibration and gallery are training images, queries are test images: what is judged was never calibrated on. All are
drawn with a fixed seed, so one data folder always gives the same verdict.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.row_reader import RowReader

CALIBRATION, GALLERY, QUERIES = 256, 4_000, 1_000


@dataclass(frozen=True)
class RealImages:
    """uint8 images (N, S, S, 3); labels are indices (N,), or None if the images have none."""

    calibration: NDArray[np.uint8]
    gallery: NDArray[np.uint8]
    queries: NDArray[np.uint8]
    gallery_labels: NDArray[np.int64] | None = None
    query_labels: NDArray[np.int64] | None = None


def choose_images(
    data: Dataset, *, calibration: int = CALIBRATION, gallery: int = GALLERY, queries: int = QUERIES
) -> RealImages:
    """Draw at most these numbers of images of each kind from a data folder."""
    read = RowReader(data.images)
    train, test = _shuffled(data.rows("train")), _shuffled(data.rows("test"))
    shown, asked = np.sort(train[:gallery]), np.sort(test[:queries])
    labelled = data.classes is not None
    return RealImages(
        calibration=read(np.sort(train[-calibration:])),
        gallery=read(shown),
        queries=read(asked),
        gallery_labels=data.labels_of(shown) if labelled else None,
        query_labels=data.labels_of(asked) if labelled else None,
    )


def _shuffled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(rows)
