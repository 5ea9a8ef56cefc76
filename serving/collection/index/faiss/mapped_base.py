"""The base: an immutable FAISS file with the rows of its vectors beside it, written once, then only mapped.

Each build has its own file name, and its files are read back with their digests before the catalogue may name them.
Whoever has a base mapped holds a shared lock on its file, so it is removed only when nobody does. The index knows
positions only; FAISS's own id map would be copied to the heap of every process.
"""

import os
import weakref
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from core.files import locks
from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.errors import CompactionError, IndexUnusable
from serving.collection.index.faiss.base_files import BaseFiles, VectorsWriter, map_vectors, publish_index, publish_rows
from serving.collection.index.faiss.depth import Chosen, Trial
from serving.collection.index.faiss.kinds import KINDS, NativeIndex, Selector
from serving.collection.index.faiss.seal import is_whole


class MappedBase:
    """A base's files, mapped read-only and checked; `matrix` (N, D) has the vector of every position."""

    def __init__(self, record: BaseRecord, index: NativeIndex, rows: Rows, matrix: Vectors) -> None:
        self.record = record
        self.kind = KINDS[record.kind]
        self.rows = rows
        self.matrix = matrix
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
        """The depth beyond which a search finds nothing more."""
        return self.kind.deepest(self._index)

    def positions(self, rows: Rows) -> Rows:
        """The position of each of `rows` in the base; -1 for those that are not in it."""
        at = np.minimum(np.searchsorted(self.rows, rows, sorter=self._order), len(self) - 1)
        positions = at if self._order is None else self._order[at]
        return np.where(self.rows[positions] == rows, positions, -1)

    def vectors(self, positions: Rows) -> Vectors:
        """The vectors at these positions, copied."""
        return self.matrix[positions]

    def search(
        self, queries: Vectors, count: int, *, depth: int, selector: Selector | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and positions (Q, count) of what `selector` allows; -1 where there is nothing."""
        return self.kind.search(self._index, queries, count=count, depth=depth, selector=selector)

    def choose_depth(self, trial: Trial, *, target: float) -> Chosen:
        """The depth for a recall target, by trial queries whose `truth` was offered all that is here."""
        return trial.choose(self.kind, self._index, rows=self.rows, matrix=self.matrix, target=target)


def publish_base(
    folder: Path, record: BaseRecord, *, index: NativeIndex, rows: Rows, vectors: VectorsWriter | None = None
) -> BaseRecord:
    """Write the files and read them back; returns the record with their digests. Raises `CompactionError`.

    `vectors` has those of an approximate base already.
    """
    files = BaseFiles(folder / record.file)
    assert not files.index.exists(), "a base is never overwritten: it may be mapped"
    try:
        of_vectors = [vectors.publish()] if vectors is not None else []
        of_rows = publish_rows(files.rows, rows)
        digests = [publish_index(files.index, index), of_rows, *of_vectors]
    except OSError as error:
        files.remove()
        raise CompactionError(f"{files.index} could not be written whole: is the disk full? ({error})") from error
    published = replace(record, sha256=":".join(digests))
    try:
        open_base(folder, published)
    except IndexUnusable as error:
        files.remove()
        raise CompactionError(f"{files.index} did not read back as it was written: {error}") from error
    return published


def open_base(folder: Path, record: BaseRecord) -> MappedBase:
    """Map a base after checking its digests; it can't be removed until the result is gone. Raises `IndexUnusable`."""
    path = folder / record.file
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise IndexUnusable(f"{path} is missing: compact the collection to build it again") from error
    try:
        mapped = _open_locked(BaseFiles(path), record, handle)
    except BaseException:
        os.close(handle)
        raise
    weakref.finalize(mapped, os.close, handle)
    return mapped


def remove_base(path: Path) -> bool:
    """Remove a base's files unless a process has it mapped; returns whether they are gone."""
    files = BaseFiles(path)
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        files.remove()
        return True
    try:
        free = locks.take(handle, wait=False)
        if free:
            files.remove()
        return free
    finally:
        os.close(handle)


def _open_locked(files: BaseFiles, record: BaseRecord, handle: int) -> MappedBase:
    locks.take(handle, shared=True)
    unlike = IndexUnusable(f"{files.index} is not what the catalogue says it is: compact the collection to rebuild it")
    if record.kind not in KINDS:
        raise unlike
    approximate = KINDS[record.kind].approximate
    content = files.content(approximate=approximate)
    if os.fstat(handle).st_nlink == 0 or not all(path.is_file() for path in content):  # removed before we had the lock
        raise IndexUnusable(f"{files.index} is missing: compact the collection to build it again")
    digests = record.sha256.split(":")
    if len(digests) != len(content) or not is_whole(content, digests, seal=files.seal):
        raise IndexUnusable(f"{files.index} was altered or torn: compact the collection to build it again")
    index = faiss.read_index(str(files.index), faiss.IO_FLAG_MMAP_IFC)
    rows = np.asarray(np.load(files.rows, mmap_mode="r"))
    if not (index.ntotal == len(rows) == record.count and index.d == record.dim):
        raise unlike
    if approximate and files.vectors.stat().st_size != 4 * record.count * record.dim:
        raise unlike
    return MappedBase(record, index, rows, _matrix(files, record, index))


def _matrix(files: BaseFiles, record: BaseRecord, index: NativeIndex) -> Vectors:
    if KINDS[record.kind].approximate:
        return map_vectors(files.vectors, record.count, record.dim)
    return np.asarray(faiss.rev_swig_ptr(index.get_xb(), record.count * record.dim).reshape(record.count, record.dim))


def _ascending(rows: Rows) -> bool:
    return bool((rows[1:] > rows[:-1]).all())
