"""Items, vectors and brute force for these tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.tools import vectors as made
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.scoring import Found

RELEASE = "a" * 64
OTHER_RELEASE = "b" * 64
ROOT = Path(__file__).parents[3]
DIM = 16
unit_vectors, brute_force = made.unit_vectors, made.brute_force


def item(name: str, content: bytes | None = None, label: str | None = None, **metadata: object) -> Item:
    return Item(name, Source.kept(content or name.encode(), "image/png"), label, metadata)


def items(names: Iterable[str], **given: object) -> list[Item]:
    return [item(name, **given) for name in names]  # type: ignore[arg-type]


def clustered_vectors(count: int, dim: int = DIM, *, clusters: int = 10, seed: int = 0) -> Vectors:
    """As embeddings are: near one of several centres."""
    random = np.random.default_rng(seed)
    centres = unit_vectors(clusters, dim, seed)[random.integers(clusters, size=count)]
    vectors = centres + random.normal(scale=0.5 / dim**0.5, size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


QUERIES = clustered_vectors(20, seed=5)


def fill(catalogue: Catalogue, vectors: Vectors, *, prefix: str = "n", release: str = RELEASE) -> list[str]:
    names = [f"{prefix}{number}" for number in range(len(vectors))]
    catalogue.upsert(items(names), vectors, release)
    return names


def stored(catalogue: Catalogue, release: str = RELEASE) -> tuple[Rows, Vectors]:
    """Every row and vector, read from SQLite."""
    return catalogue.vectors.at(catalogue.vectors.census(release).rows, release)


def assert_same(found: Found, expected: Found) -> None:
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-7)


def churned(catalogue: Catalogue, kind: str) -> FaissIndex:
    """A base of 400, of which some are deleted or replaced, and a delta."""
    fill(catalogue, clustered_vectors(400))
    assert compact(catalogue, RELEASE, Plan(kind=kind, recall_target=1.0))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=10)
    catalogue.delete([f"n{number}" for number in range(0, 60, 3)])
    catalogue.upsert(items([f"n{n}" for n in range(100, 130)]), clustered_vectors(30, seed=1), RELEASE)
    fill(catalogue, clustered_vectors(40, seed=2), prefix="m")
    catalogue.delete(["m3", "n101"])
    return neighbours


def script(body: str, *arguments: object) -> Sequence[str]:
    """The command that runs some Python with these examples at hand."""
    head = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.serving.collection.examples import *\n"
        "from serving.collection.catalogue.opening import open_catalogue\n"
        "from serving.collection.errors import *\n"
    )
    return [sys.executable, "-c", head + body, *map(str, arguments)]


def start(body: str, *arguments: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(script(body, *arguments), stdin=pipe, stdout=pipe, text=True, env=environment)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "removed": Path.unlink}
