"""Which queries an encoder gets right: by a probe fitted anew, by its own probe as served, and by its neighbours.

Two encoders were trained, and their probes fitted, on different data; only probes fitted here, on the same images,
compare the encoders. Whether a difference is more than chance is in `export.comparison.bootstrap`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.comparison.contender import ComparedEmbeddings
from export.comparison.sample import Sample
from training.measures.knn import weighted_right
from training.measures.probe import fit_probe

NEIGHBOURS = 10

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Accuracy:
    """Whether each query (N,) is right by each measure; `served` is None for a release without a probe."""

    probe: Right
    knn: Right
    served: Right | None

    def to_json(self) -> dict[str, float | None]:
        """Each measure as the share of queries that are right."""
        served = None if self.served is None else float(self.served.mean())
        return {"probe": float(self.probe.mean()), "knn": float(self.knn.mean()), "served_probe": served}


def accuracy_of(embedded: ComparedEmbeddings, sample: Sample, own: Sequence[str] | None) -> Accuracy:
    """Judge the queries; `own` are the labels of the release's own logits."""
    assert sample.classes is not None
    gallery, validation, wanted = (
        sample.labels_of(rows) for rows in (sample.gallery, sample.validation, sample.queries)
    )
    fit = fit_probe((embedded.gallery, gallery), (embedded.validation, validation), sample.classes)
    h, names = embedded.queries.embedding, sample.names_of(sample.queries)
    return Accuracy(
        probe=right_by(fit.probe.logits(h), fit.probe.classes, names),
        knn=weighted_right((embedded.gallery, gallery), (h, wanted), k=NEIGHBOURS),
        served=served_right(embedded, sample, own),
    )


def served_right(embedded: ComparedEmbeddings, sample: Sample, own: Sequence[str] | None) -> Right | None:
    """Whether each query is right by the release's own logits; None without a probe."""
    logits = embedded.queries.logits
    return None if logits is None or own is None else right_by(logits, own, sample.names_of(sample.queries))


def right_by(logits: NDArray[np.float32], classes: Sequence[str], names: NDArray[np.str_]) -> Right:
    """Whether the largest of each row of logits (N, C) is that of the label's name (N,), which C may lack."""
    found: Right = np.array(classes)[logits.argmax(axis=1)] == names
    return found


def share_by_class(right: Right, names: NDArray[np.str_]) -> dict[str, float]:
    """The share of right queries of each label that occurs."""
    return {str(name): float(right[names == name].mean()) for name in np.unique(names)}
