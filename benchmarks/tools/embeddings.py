"""The vectors of the search benchmarks: real embeddings of images, and more of them grown from these.

A grown vector is a convex mix, in a random proportion, of a real one and one of its ten nearest, plus a random step a
fifth as long as the distance of the two, normalised. So it lies where real ones lie, as close together as a larger
collection would be, and no two are the same. Queries are always real, and of images that none of it is made of.
`simclr bulk` embeds the images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from serving.collection.catalogue.vectors import Rows, Vectors

NEAREST = 10
STEP = 0.2
PART = 8192


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Real embeddings, unit norm: those to store (N, D), and queries (Q, D) of other images."""

    stored: Vectors
    queries: Vectors


def load_embeddings(folder: Path, *, queries: int = 1000, seed: int = 0) -> Embeddings:
    """What `simclr bulk` wrote to `folder`; queries are of images in a folder called test, if there are any.

    Otherwise a random tenth of all. Raises `ValueError` where there is nothing.
    """
    shards = sorted(folder.glob("shard-*.npy"))
    if not shards:
        raise ValueError(f"{folder} has no shard-*.npy: write it with simclr bulk IMAGES --out {folder}")
    vectors = np.concatenate([np.load(path).astype(np.float32) for path in shards])
    ids = [name for path in shards for name in pq.read_table(path.with_suffix(".parquet"))["id"].to_pylist()]
    random = np.random.default_rng(seed)
    held = np.array(["test" in name.split("/")[:-1] for name in ids])
    if not held.any():
        held = random.random(len(ids)) < 0.1
    asked = random.permutation(np.flatnonzero(held))[:queries]
    return Embeddings(vectors[~held], np.ascontiguousarray(vectors[asked]))


def nearest(vectors: Vectors, count: int = NEAREST) -> Rows:
    """About the `count` nearest others of each vector, (N, count), by a graph."""
    index = faiss.index_factory(vectors.shape[1], "HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:16_384])
    index.add(vectors)
    found = index.search(vectors, count + 1)[1]
    own = found == np.arange(len(vectors))[:, None]
    own[~own.any(axis=1), -1] = True  # it did not find itself: leave out the last
    rows: Rows = found[~own].reshape(len(vectors), count)
    return rows


def grown(real: Vectors, count: int, *, near: Rows, seed: int = 0) -> Iterator[Vectors]:
    """The real vectors (N, D) and then grown ones, `count` in all, in parts; `near` is (N, neighbours)."""
    for start in range(0, min(len(real), count), PART):
        yield real[start : min(start + PART, count)]
    random = np.random.default_rng(seed)
    for start in range(len(real), count, PART):
        yield _part(real, min(PART, count - start), near, random)


def _part(real: Vectors, count: int, near: Rows, random: np.random.Generator) -> Vectors:
    one = random.integers(len(real), size=count)
    two = near[one, random.integers(near.shape[1], size=count)]
    apart = real[two] - real[one]
    step = random.standard_normal(apart.shape, np.float32)
    step *= STEP * np.linalg.norm(apart, axis=1, keepdims=True) / np.linalg.norm(step, axis=1, keepdims=True)
    mixed = real[one] + random.random((count, 1), np.float32) * apart + step
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return mixed
