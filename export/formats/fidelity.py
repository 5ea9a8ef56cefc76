"""May an approximate file stand for the exact one? Its fidelity, measured on real images and held against bounds.

Compared with the eager graph: the cosine of each query's two embeddings, the share of each query's ten nearest
neighbours that stay the same, and the accuracy of kNN and linear probe before and after. A release holds the file only
if it is within every bound. Exact formats are compared by `export.formats.parity`.
"""

import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.formats.real_images import RealImages
from serving.inference.backends import Outputs
from training.measures.knn import neighbours, weighted_accuracy

NEIGHBOURS = 10


@dataclass(frozen=True)
class FidelityBounds:
    """What an approximate file must reach: cosines and shares in [0, 1], accuracies in points of 100."""

    cosine_mean: float = 0.999
    cosine_least: float = 0.99
    neighbours_same: float = 0.95
    points_lost: float = 0.5


FIDELITY = FidelityBounds()


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and gallery as one file embeds them: `queries` (N, D) with logits (N, C) or None, `gallery` (M, D)."""

    queries: Outputs
    gallery: NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """The figures of one file, and the bounds that it misses as sentences; if it misses none it may be published."""

    figures: dict[str, float]
    failed: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the file is within every bound."""
        return not self.failed

    def to_json(self, bounds: FidelityBounds) -> dict[str, Any]:
        """As the manifest records it."""
        return {
            "passed": self.passed,
            "figures": self.figures,
            "thresholds": asdict(bounds),
            "failed": list(self.failed),
        }


def embed(run: Callable[[NDArray[np.uint8]], Outputs], images: RealImages) -> RetrievalSet:
    """Embed queries and gallery with `run`, which takes any number of uint8 images (N, S, S, 3)."""
    return RetrievalSet(run(images.queries), run(images.gallery).embedding)


def judge(exact: RetrievalSet, found: RetrievalSet, images: RealImages, bounds: FidelityBounds = FIDELITY) -> Verdict:
    """Compare an approximate file's embeddings with the exact ones and hold the figures against the bounds."""
    figures = compare(exact, found, images)
    lost = {key: value for key, value in figures.items() if key.endswith("_points_lost")}
    held = [(key, getattr(bounds, key), operator.ge) for key in ("cosine_mean", "cosine_least", "neighbours_same")]
    held += [(key, bounds.points_lost, operator.le) for key in lost]
    failed = [
        f"{key} is {figures[key]:.5f}, {'below' if holds is operator.ge else 'above'} {bound}"
        for key, bound, holds in held
        if not holds(figures[key], bound)  # NaN never holds
    ]
    return Verdict(figures, tuple(failed))


def compare(exact: RetrievalSet, found: RetrievalSet, images: RealImages) -> dict[str, float]:
    """Every figure that has a bound; those of accuracy only if the images have labels."""
    cosine = (exact.queries.embedding.astype(np.float64) * found.queries.embedding).sum(axis=1)
    figures = {
        "images": float(len(cosine)),
        "gallery": float(len(exact.gallery)),
        "cosine_mean": float(cosine.mean()),
        "cosine_least": float(cosine.min()),
        "neighbours_same": neighbours_same(exact, found),
        # queries of this file in a gallery of the exact one, as with two kinds of servers on one collection
        "neighbours_same_mixed": neighbours_same(exact, RetrievalSet(found.queries, exact.gallery)),
    }
    if images.query_labels is None or images.gallery_labels is None:
        return figures
    return figures | _accuracies(exact, found, images.gallery_labels, images.query_labels)


def neighbours_same(exact: RetrievalSet, found: RetrievalSet, k: int = NEIGHBOURS) -> float:
    """The share of each query's k nearest in the gallery that both find, on average over the queries."""
    one, two = (neighbours(one.gallery, one.queries.embedding, k)[0] for one in (exact, found))
    shared = [len(np.intersect1d(first, second)) for first, second in zip(one, two, strict=True)]
    return float(np.mean(shared) / one.shape[1])


def _accuracies(
    exact: RetrievalSet, found: RetrievalSet, gallery_labels: NDArray[np.int64], query_labels: NDArray[np.int64]
) -> dict[str, float]:
    knn = [
        weighted_accuracy((one.gallery, gallery_labels), (one.queries.embedding, query_labels))
        for one in (exact, found)
    ]
    figures = {"knn_before": knn[0], "knn_after": knn[1], "knn_points_lost": 100 * (knn[0] - knn[1])}
    before, after = exact.queries.logits, found.queries.logits
    if before is None or after is None:
        return figures
    probe = [float((logits.argmax(axis=1) == query_labels).mean()) for logits in (before, after)]
    lost = 100 * (probe[0] - probe[1])
    return figures | {"probe_before": probe[0], "probe_after": probe[1], "probe_points_lost": lost}
