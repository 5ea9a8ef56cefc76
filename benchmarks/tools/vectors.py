"""Random vectors, and the search by definition that others are compared with."""

import numpy as np

from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.scoring import Found


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> Vectors:
    """Vectors (count, dim) of unit norm, in random directions."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def brute_force(rows: Rows, vectors: Vectors, queries: Vectors, k: int) -> Found:
    """The definition: float64 inner products, rounded to float32, ties by row."""
    scores = (queries.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    order = np.stack([np.lexsort((rows, -line))[:k] for line in scores])
    return Found(np.clip(np.take_along_axis(scores, order, 1), -1, 1), rows[order])
