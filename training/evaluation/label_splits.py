"""The labelled images of a data set, by what may be done with them: fit on train, choose on validation, report test.

Whatever fits or chooses is handed `train` and `validation` of this; `test` is read where the one number that is
reported is made, and nowhere else.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.splits import TEST, TRAIN, VALIDATION
from training.measures.probe import Fit, accuracy, fit_probe

Rows = NDArray[np.int64]
Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class LabelSplits:
    """Rows of a data set, int64 and ascending, with the label index of every row (N,) and the labels' names."""

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    train: Rows
    validation: Rows
    test: Rows

    @classmethod
    def of(cls, dataset: Dataset) -> Self | None:
        """The splits of `dataset`; None where there is nothing to fit or to test (`lacking` says why)."""
        if dataset.labels is None or dataset.classes is None or lacking(dataset) is not None:
            return None
        train, validation, test = map(dataset.rows, (TRAIN, VALIDATION, TEST))
        return cls(tuple(dataset.classes), dataset.labels, train, validation, test)

    @property
    def seen(self) -> NDArray[np.int64]:
        """The label indices that occur in train, ascending: the ones that can be learnt."""
        return np.unique(self.labels[self.train])

    @property
    def known(self) -> Rows:
        """Train, then validation: the rows whose labels nearest neighbours vote with."""
        return np.concatenate([self.train, self.validation])

    def targets(self, rows: Rows) -> NDArray[np.int64]:
        """Labels of rows as positions in `seen`, int64; -1 for a label that train does not have."""
        places = np.full(len(self.classes), -1, dtype=np.int64)
        places[self.seen] = np.arange(len(self.seen))
        return places[self.labels[rows]]

    def names(self, rows: Rows) -> list[str]:
        """The labels' names of rows."""
        return [self.classes[code] for code in self.labels[rows]]

    def labelled(self, h: NDArray[np.float32], rows: Rows) -> Labelled:
        """Embeddings and label indices of rows; h (N, D) is of all of them."""
        return h[rows], self.labels[rows]


def fit_and_test(h: NDArray[np.float32], splits: LabelSplits, *, quiet: bool = False) -> tuple[Fit, float]:
    """A linear probe fitted on train and chosen on validation, and its accuracy on test; h (N, D) is of all rows."""
    train, validation = (splits.labelled(h, rows) for rows in (splits.train, splits.validation))
    fit = fit_probe(train, validation, splits.classes, quiet=quiet)
    return fit, accuracy(fit.probe, h[splits.test], splits.names(splits.test))


def lacking(dataset: Dataset) -> str | None:
    """What `dataset` lacks for kNN and probes, in words; None if nothing."""
    if dataset.labels is None:
        return "the images have no labels"
    if len(np.unique(dataset.labels[dataset.rows(TRAIN)])) < 2:
        return "the training split has one label only"
    return None if len(dataset.rows(TEST)) else "there are no test images"
