"""Which labels are taken for which: the confusion matrix, and what follows from it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


class Pair(NamedTuple):
    """`images` of label index `true` that were taken for `predicted`; `share` is of the images of `true`."""

    true: int
    predicted: int
    images: int
    share: float


def confusion(true: NDArray[np.int64], predicted: NDArray[np.int64], *, classes: int) -> Counts:
    """Label indices (N,), twice, to counts int64 (C, C): rows are the true labels, columns the predicted ones.

    Raises ValueError for an index that is not within 0 to `classes` - 1.
    """
    for name, codes in (("true", true), ("predicted", predicted)):
        if len(codes) and not 0 <= codes.min() <= codes.max() < classes:
            raise ValueError(f"{name} has indices {codes.min()} to {codes.max()}; accepted: 0 to {classes - 1}")
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(counts: Counts) -> list[float | None]:
    """The accuracy of each label, the share of its row on the diagonal of (C, C); None without images of it."""
    return [float(row[code] / row.sum()) if row.sum() else None for code, row in enumerate(counts)]


def worst_pairs(counts: Counts, most: int) -> list[Pair]:
    """At most `most` pairs that are confused, the most frequent first; (C, C) as `confusion` gives it."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Pair(int(true), int(predicted), int(wrong[true, predicted]), float(wrong[true, predicted] / counts[true].sum()))
        for true, predicted in places
        if wrong[true, predicted]
    ]
