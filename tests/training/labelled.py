"""Labelled embeddings to fit on, and a data set in memory to go with them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.evaluation.label_splits import LabelSplits

Labelled = tuple[NDArray[np.float32], NDArray[np.int64]]


def blobs(n: int, labels: int, *, seed: int = 0, noise: float = 0.6) -> Labelled:
    """Unit-norm embeddings (n, 12) around a centre for each label."""
    centres = np.random.default_rng(99).normal(size=(labels, 12))
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % labels
    h = centres[codes] + noise * rng.normal(size=(n, 12))
    return (h / np.linalg.norm(h, axis=1, keepdims=True)).astype(np.float32), codes.astype(np.int64)


def split(labels: NDArray[np.int64], *, train: int, validation: int) -> LabelSplits:
    """The first rows train, the next validation, the rest test; labels are called a, b, c, ..."""
    rows = np.arange(len(labels))
    names = tuple("abcdefghij"[: labels.max() + 1])
    return LabelSplits(names, labels, rows[:train], rows[train : train + validation], rows[train + validation :])


def in_memory(
    images: NDArray[np.uint8], splits: list[str], labels: list[str] | None, *, name: str = "images"
) -> Dataset:
    """A data set of images (N, S, S, 3) that no folder holds; its digest is its name."""
    classes = sorted(set(labels)) if labels else None
    codes = np.array([classes.index(label) for label in labels]) if labels and classes else None
    counts = {split: splits.count(split) for split in sorted(set(splits))}
    facts = {"classes": classes, "image_size": images.shape[1], "digest": name, "name": name, "counts": counts}
    ids = [f"{name}-{row}.png" for row in range(len(images))]
    return Dataset(Path("nowhere"), images, ids, np.array(splits), codes, facts)
