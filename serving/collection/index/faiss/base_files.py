"""The files of a base: the FAISS index, the row at each of its positions and, if it has only codes, the vectors.

`<name>.faiss`, `<name>.rows.npy` (int64) and `<name>.f32` (float32 little-endian, position after position, without a
header). All are written to a temporary file, synced and renamed, the index last: without the index, the others mean
nothing. FAISS's own writing neither syncs nor reports a full disk, so it writes through us.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from core.files.durable import publish_file, sha256_of, sync
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.faiss.kinds import NativeIndex

_BLOCK = 1 << 20
INDEX, ROWS, VECTORS, SEAL = ".faiss", ".rows.npy", ".f32", ".seal.json"


@dataclass(frozen=True)
class BaseFiles:
    """The paths of a base's files; `index` is that of its FAISS index."""

    index: Path

    @property
    def rows(self) -> Path:
        """The row at each position."""
        return self.index.with_suffix(ROWS)

    @property
    def vectors(self) -> Path:
        """The vector at each position; an exact base has none, as its index holds them."""
        return self.index.with_suffix(VECTORS)

    @property
    def seal(self) -> Path:
        """The note that says in which state the files were found whole (`serving.collection.index.faiss.seal`)."""
        return self.index.with_suffix(SEAL)

    def content(self, *, approximate: bool) -> list[Path]:
        """The files that make up the base, in the order of the digests in its record."""
        return [self.index, self.rows, *([self.vectors] if approximate else [])]

    def remove(self) -> None:
        """Remove them, the index last."""
        for path in (self.seal, self.vectors, partial_of(self.vectors), self.rows, self.index):
            path.unlink(missing_ok=True)


class VectorsWriter:
    """Writes a base's vectors as they come; readable from `matrix` meanwhile."""

    def __init__(self, path: Path, dim: int) -> None:
        self._path = path
        self._dim = dim
        self._partial = partial_of(path)
        self._file = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self._count = 0

    def append(self, vectors: Vectors) -> None:
        """Add vectors (N, D) to the end."""
        block = np.ascontiguousarray(vectors, "<f4").data.cast("B") if len(vectors) else b""
        self._digest.update(block)
        self._file.write(block)
        self._count += len(vectors)

    def matrix(self) -> Vectors:
        """What was written so far, (N, D), mapped."""
        self._file.flush()
        return map_vectors(self._partial, self._count, self._dim)

    def publish(self) -> str:
        """Put the finished file in its place; returns its digest."""
        self._file.close()
        sync(self._partial)
        os.replace(self._partial, self._path)
        sync(self._path.parent)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file, whether or not it was published."""
        self._file.close()


def map_vectors(path: Path, count: int, dim: int) -> Vectors:
    """The vectors (N, D) in a file, mapped read-only, without reading ahead: they are read here and there."""
    mapped = np.memmap(path, "<f4", mode="r", shape=(count, dim))
    mapped._mmap.madvise(1)  # type: ignore[attr-defined]  # MADV_RANDOM
    return np.asarray(mapped)


def read_vectors(path: Path, dim: int, *, at_once: int = 4096) -> Iterator[Vectors]:
    """All vectors in a file, in parts (N, D), read in order, as a mapped file is not read ahead."""
    with path.open("rb") as file:
        while len(part := np.fromfile(file, "<f4", at_once * dim)):
            yield part.reshape(-1, dim)


def publish_index(path: Path, index: NativeIndex) -> str:
    """Write the index; returns its digest."""
    digest = hashlib.sha256()

    def write(partial: Path) -> None:
        with partial.open("wb") as file:

            def take(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            faiss.write_index(index, faiss.PyCallbackIOWriter(take, _BLOCK))  # type: ignore[attr-defined]

    publish_file(path, write)
    return digest.hexdigest()


def publish_rows(path: Path, rows: Rows) -> str:
    """Write the rows; returns their digest."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, rows)

    publish_file(path, write)
    return sha256_of(path)


def partial_of(path: Path) -> Path:
    """The name under which a file is written."""
    return path.with_name(f".{path.name}.partial")
