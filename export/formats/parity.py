"""Do the exported files give the eager graph's answers? Measured on real images, and refused if not.

Each file is run by `serving.inference.runtime`, the very code that serves it, once on all images and once on a single
one, so that a batch size frozen into a file is noticed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.formats.graph import ServingGraph
from serving.inference.runtime import Outputs, open_runtime, run_in_passes


@dataclass(frozen=True)
class ParityBounds:
    """The least cosine; the largest difference of a number of an embedding, or of a logit relative to the largest."""

    least_cosine: float
    largest_difference: float


EXACT = ParityBounds(0.99999, 1e-4)
HALF = ParityBounds(0.9999, 2e-3)  # half precision keeps 11 bits of each number


class ParityError(RuntimeError):
    """An exported file that answers otherwise than the eager graph."""


def eager(graph: ServingGraph, images: NDArray[np.uint8]) -> Outputs:
    """The reference: the graph itself, in float32 on the CPU, on uint8 images (N, S, S, 3)."""
    with torch.inference_mode():
        parts = [graph(torch.from_numpy(part)) for part in np.array_split(images, max(1, len(images) // 64))]
    embedding, *logits = (torch.cat(list(column)).numpy() for column in zip(*parts, strict=True))
    return Outputs(embedding, logits[0] if logits else None)


def measure(reference: Outputs, found: Outputs) -> dict[str, float]:
    """Cosine (least and mean) and largest absolute difference of embeddings, and of logits if there are any."""
    cosine = (reference.embedding.astype(np.float64) * found.embedding).sum(axis=1)
    values = {
        "images": len(cosine),
        "cosine_least": float(cosine.min()),
        "cosine_mean": float(cosine.mean()),
        "embedding_difference": float(np.abs(reference.embedding - found.embedding).max()),
    }
    if reference.logits is not None:
        if found.logits is None:
            raise ParityError("the exported file has no logits, though the graph has a probe")
        values["logits_difference"] = float(np.abs(reference.logits - found.logits).max())
        values["logits_largest"] = float(np.abs(reference.logits).max())
    return values


def check(
    graph: ServingGraph, files: Mapping[str, Path], images: NDArray[np.uint8], *, bounds: ParityBounds = EXACT
) -> dict[str, Any]:
    """Compare each file (format name to path) with the graph on `images`; returns the figures of each format.

    Raises `ParityError`, which names format, figure and bound.
    """
    if len(images) == 0:
        raise ValueError("images is empty; parity needs at least one real image")
    reference = eager(graph, images)
    figures = {}
    for form, path in files.items():
        runtime = open_runtime(path, device="cpu")
        figures[form] = measure(reference, run_in_passes(runtime, images))
        _enforce(form, figures[form], bounds)
        alone = measure(_first(reference), runtime(images[:1]))
        if "logits_largest" in alone:
            alone["logits_largest"] = figures[form]["logits_largest"]  # the scale of logits is not one image's matter
        _enforce(f"{form}, one image", alone, bounds)
    return figures


def _enforce(form: str, figures: dict[str, float], bounds: ParityBounds) -> None:
    if not figures["cosine_least"] >= bounds.least_cosine:
        raise ParityError(f"{form}: least cosine {figures['cosine_least']:.7f} is below {bounds.least_cosine}")
    largest = bounds.largest_difference
    if not figures["embedding_difference"] <= largest:
        raise ParityError(f"{form}: an embedding differs by {figures['embedding_difference']:.2e}, above {largest}")
    bound = largest * (1.0 + figures.get("logits_largest", 0.0))
    if not figures.get("logits_difference", 0.0) <= bound:
        raise ParityError(f"{form}: a logit differs by {figures['logits_difference']:.2e}, above {bound:.2e}")


def _first(outputs: Outputs) -> Outputs:
    return Outputs(outputs.embedding[:1], outputs.logits[:1] if outputs.logits is not None else None)
