"""The base: an immutable FAISS file with the rows of its vectors beside it, written once, then only mapped.

A build has a name of its own; it is written to a temporary file, synced, renamed, and read back with its digest
before the catalogue may name it. FAISS's own writing neither syncs nor reports a full disk, so it writes through us.
Whoever has a base mapped holds a shared lock on its file, so that it is removed only when nobody does.
The index knows positions only; FAISS's own id map would be copied to the heap of every process.
Left out: what goes into a base (`serving.collection.build`), and when (`serving.collection.compaction`).
"""

import fcntl
import hashlib
import os
import weakref
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.collection.bases import Base
from serving.collection.errors import CompactionError, IndexUnusable
from serving.collection.index_kinds import KINDS, Index, Selector
from serving.collection.vectors import Rows, Vectors
from serving.durable import publish_file, sha256_of

_BLOCK = 1 << 20


class MappedBase:
    """A base file, mapped read-only and checked against its digest."""

    def __init__(self, record: Base, index: Index, rows: Rows) -> None:
        self.record = record
        self.kind = KINDS[record.kind]
        self.rows = rows
        self._index = index
        self._order = None if _ascending(rows) else np.argsort(rows, kind="stable")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def depth(self) -> int:
        """The search depth that reached the recall target when it was built."""
        return int(self.record.facts.get("depth", 1))

    @property
    def deepest(self) -> int:
        """The depth beyond which there is nothing to see."""
        return self.kind.deepest(self._index)

    def positions(self, rows: Rows) -> Rows:
        """Where each of `rows` is in the base; -1 for those that are not."""
        at = np.minimum(np.searchsorted(self.rows, rows, sorter=self._order), len(self) - 1)
        positions = at if self._order is None else self._order[at]
        return np.where(self.rows[positions] == rows, positions, -1)

    def vectors(self, positions: Rows) -> Vectors:
        """The vectors themselves, of an exact base."""
        assert not self.kind.approximate, "an approximate base has codes; the vectors are in the catalogue"
        flat = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self.record.dim)
        return np.asarray(flat.reshape(len(self), self.record.dim)[positions])

    def search(
        self, queries: Vectors, count: int, *, depth: int, selector: Selector | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and positions (Q, count), those that `selector` allows; -1 where there is none."""
        return self.kind.search(self._index, queries, count=count, depth=depth, selector=selector)


def publish_base(folder: Path, record: Base, *, index: Index, rows: Rows) -> Base:
    """Write the two files and read them back; returns the record with their digest. Raises `CompactionError`."""
    path = folder / record.file
    assert not path.exists(), "a base is never overwritten: it may be mapped"
    try:
        digests = [_publish_rows(rows_path(path), rows), _publish_index(path, index)]
    except OSError as error:
        remove_base(path)
        raise CompactionError(f"{path} could not be written whole: is the disk full? ({error})") from error
    published = replace(record, sha256=f"{digests[1]}:{digests[0]}")
    try:
        open_base(folder, published)
    except IndexUnusable as error:
        remove_base(path)
        raise CompactionError(f"{path} did not read back as it was written: {error}") from error
    return published


def open_base(folder: Path, record: Base) -> MappedBase:
    """Map a base after checking its digest; it can't be removed until the result is gone. Raises `IndexUnusable`."""
    path = folder / record.file
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise IndexUnusable(f"{path} is missing: compact the collection to build it again") from error
    try:
        mapped = _open_locked(path, record, handle)
    except BaseException:
        os.close(handle)
        raise
    weakref.finalize(mapped, os.close, handle)
    return mapped


def remove_base(path: Path) -> bool:
    """Remove a base's files unless somebody has it mapped; whether they are gone."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        rows_path(path).unlink(missing_ok=True)
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        rows_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def rows_path(path: Path) -> Path:
    """The file beside a base with the row at each of its positions."""
    return path.with_suffix(".rows.npy")


def _open_locked(path: Path, record: Base, handle: int) -> MappedBase:
    fcntl.flock(handle, fcntl.LOCK_SH)
    rows_file = rows_path(path)
    if os.fstat(handle).st_nlink == 0 or not rows_file.is_file():  # removed before we had the lock
        raise IndexUnusable(f"{path} is missing: compact the collection to build it again")
    if f"{sha256_of(path)}:{sha256_of(rows_file)}" != record.sha256:
        raise IndexUnusable(f"{path} was altered or torn: compact the collection to build it again")
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    rows = np.asarray(np.load(rows_file, mmap_mode="r"))
    if not (index.ntotal == len(rows) == record.count and index.d == record.dim and record.kind in KINDS):
        raise IndexUnusable(f"{path} is not what the catalogue says of it: compact the collection to build it again")
    return MappedBase(record, index, rows)


def _publish_index(path: Path, index: Index) -> str:
    digest = hashlib.sha256()

    def write(partial: Path) -> None:
        with partial.open("wb") as file:

            def take(block: bytes) -> None:
                digest.update(block)
                file.write(block)

            faiss.write_index(index, faiss.PyCallbackIOWriter(take, _BLOCK))  # type: ignore[attr-defined]

    publish_file(path, write)
    return digest.hexdigest()


def _publish_rows(path: Path, rows: Rows) -> str:
    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, rows)

    publish_file(path, write)
    return sha256_of(path)


def _ascending(rows: Rows) -> bool:
    return bool((rows[1:] > rows[:-1]).all())
