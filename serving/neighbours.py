"""Nearest neighbours: a FAISS file built from the catalogue's vectors, mapped read-only, searched exactly.

Score is cosine similarity: the inner product of unit-norm embeddings. The index knows positions only;
`rows` beside it turns a position into the catalogue's row (FAISS's own id map would be copied to the heap of
every process). A base file is never rewritten: each build has a new name, is synced to disk and renamed, and
only then named in the catalogue together with its digest. `write_index` neither syncs nor reports a full
disk, so the file is read back before it counts.
Left out: the delta of writes since the base, deletion, and approximate indexes.
"""

import uuid
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.catalogue import Base, Catalogue
from serving.durable import publish_file, sha256_of


class IndexUnusable(ValueError):
    """An index that does not match its collection or its release."""


class Found(NamedTuple):
    """Search results for Q queries: `scores` float32 (Q, k), `rows` int64 (Q, k), best first."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


class Neighbours:
    """The base of one release, ready to search."""

    def __init__(self, index: faiss.Index, rows: NDArray[np.int64]) -> None:
        self._index = index
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """The `k` rows of highest cosine similarity to each query (Q, D); fewer where there are fewer."""
        k = min(k, len(self))
        if k == 0:
            return Found(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        scores, positions = self._index.search(np.ascontiguousarray(queries, np.float32), k)
        return Found(np.clip(scores, -1.0, 1.0), self._rows[positions])


def build_base(catalogue: Catalogue, release: str) -> Base:
    """Write a new base with every vector of `release` and name it in the catalogue.

    Raises `IndexUnusable` if there is no vector, or what was written does not read back.
    """
    seq = catalogue.sequence(release)
    rows, vectors = _gather(catalogue, release)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    name = f"{release[:16]}-{seq}-{uuid.uuid4().hex[:8]}.faiss"  # never the name of a base that may be mapped
    path = catalogue.folder / name
    _publish_rows(_rows_path(path), rows)
    _publish_index(path, index)
    base = Base(release, name, _digest(path), len(rows), vectors.shape[1], seq)
    catalogue.set_base(base)
    return base


def open_base(catalogue: Catalogue, release: str) -> Neighbours:
    """Map the base of `release` after checking its digest and that it holds every write."""
    base = catalogue.base(release)
    if base is None:
        others = ", ".join(sorted(name[:16] for name in catalogue.releases())) or "none"
        raise IndexUnusable(
            f"the collection {catalogue.folder} has no index for release {release[:16]} (it has vectors of: "
            f"{others}); run `python -m serving.ingest` with this release"
        )
    if base.seq != catalogue.sequence(release):
        raise IndexUnusable(
            f"the index of {catalogue.folder} stands at write {base.seq}, the catalogue at "
            f"{catalogue.sequence(release)}; run `python -m serving.ingest` again"
        )
    path = catalogue.folder / base.file
    if not path.is_file() or not _rows_path(path).is_file() or _digest(path) != base.sha256:
        raise IndexUnusable(f"{path} is missing or was altered; run `python -m serving.ingest` again")
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    return Neighbours(index, np.load(_rows_path(path), mmap_mode="r"))


def _gather(catalogue: Catalogue, release: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    count = catalogue.count(release)
    if count == 0:
        raise IndexUnusable(f"the collection {catalogue.folder} has no vector of release {release[:16]} to index")
    rows = np.empty(count, np.int64)
    stored = catalogue.vectors(release)
    row, first = next(stored)
    vectors = np.empty((count, len(first)), np.float32)
    rows[0], vectors[0] = row, first
    for position, (row, vector) in enumerate(stored, start=1):
        rows[position], vectors[position] = row, vector
    return rows, vectors


def _publish_index(path: Path, index: faiss.Index) -> None:
    def write(partial: Path) -> None:
        try:
            faiss.write_index(index, str(partial))
            whole = faiss.read_index(str(partial)).ntotal == index.ntotal
        except RuntimeError:
            whole = False
        if not whole:
            raise IndexUnusable(f"{path} could not be written whole: is the disk full?")

    publish_file(path, write)


def _publish_rows(path: Path, rows: NDArray[np.int64]) -> None:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, rows)

    publish_file(path, write)


def _rows_path(path: Path) -> Path:
    return path.with_suffix(".rows.npy")


def _digest(path: Path) -> str:
    return f"{sha256_of(path)}:{sha256_of(_rows_path(path))}"
