"""Which images two releases are compared on: the same for both, drawn with a fixed seed, and never too many.

Queries are test images, the gallery that they search is train images, and validation images choose the probe's
regularisation. Their pixels are read by `export.comparison.pixels`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.splits import TEST, TRAIN, VALIDATION
from training.evaluation.neighbour_samples import spaced

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SampleSizes:
    """The most images of each kind, which bounds the cost of a comparison however large the collection is."""

    gallery: int = 10_000
    validation: int = 2_000
    queries: int = 5_000
    signals: int = 1_000


SIZES = SampleSizes()


@dataclass(frozen=True)
class Sample:
    """Rows of a data set, ascending. `signals` are positions in `queries`, a few for measures of pairs of images.

    `classes` are the labels' names and `labels` the index of every row, both None if labels can't be compared.
    """

    gallery: Rows
    validation: Rows
    queries: Rows
    signals: Rows
    classes: tuple[str, ...] | None = None
    labels: NDArray[np.int64] | None = None

    def labels_of(self, rows: Rows) -> NDArray[np.int64]:
        """The label indices (N,) of rows; there must be labels."""
        assert self.labels is not None
        return self.labels[rows]

    def names_of(self, rows: Rows) -> NDArray[np.str_]:
        """The labels' names (N,) of rows; there must be labels."""
        assert self.classes is not None
        return np.array(self.classes)[self.labels_of(rows)]

    def counts(self) -> dict[str, int]:
        """How many images of each kind there are."""
        return {name: len(getattr(self, name)) for name in ("gallery", "validation", "queries", "signals")}


def choose_rows(data: Dataset, sizes: SampleSizes = SIZES) -> Sample:
    """Draw the images of a comparison; raises ValueError if there is no test image or no train image."""
    train, validation, test = map(data.rows, (TRAIN, VALIDATION, TEST))
    for name, rows in ((TRAIN, train), (TEST, test)):
        if not len(rows):
            raise ValueError(f"{data.folder} has no {name} images; a comparison needs some: prepare with a hold-out")
    labels = data.labels
    if labels is not None:
        known = [rows[labels[rows] >= 0] for rows in (train, validation, test)]
        if len(known[2]) and len(np.unique(labels[known[0]])) > 1:
            train, validation, test = known
        else:
            labels = None
    queries = _drawn(test, labels, sizes.queries)
    return Sample(
        gallery=_drawn(train, labels, sizes.gallery),
        validation=_drawn(validation, labels, sizes.validation),
        queries=queries,
        signals=_drawn(np.arange(len(queries)), None if labels is None else labels[queries], sizes.signals),
        classes=tuple(data.classes) if labels is not None and data.classes is not None else None,
        labels=labels,
    )


def _drawn(rows: Rows, labels: NDArray[np.int64] | None, most: int) -> Rows:
    """At most `most` of the rows, drawn by chance with the share of each label kept."""
    shuffled = np.random.default_rng(0).permutation(rows)
    if labels is not None:
        shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(spaced(shuffled, most))
