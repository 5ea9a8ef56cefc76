"""Embeds what waits for a vector in one space, with the worker's own embedder, in pieces.

Before a search by a complete space the worker that serves it has all of that done which waited when the search came;
the keeper does it once a second, and fills a space that is not complete yet.
Left out: what waits, and why (`serving.collection.spaces`); filling a space without a server (`serving.reembed`).
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from serving.collection.catalogue import Catalogue
from serving.collection.spaces import Pending
from serving.embedder import Embedded
from serving.folders import UnreadableFile
from serving.images import ImageError
from serving.pending_sources import PendingSources, Picture

PIECE = 32  # items read, embedded and stored at once
_PIECE_BYTES = 32 << 20  # of their pictures, or of one


class CatchingUp:
    """What waits in `space`, and `embed` (image files to embeddings) to do it with. Threads take turns."""

    def __init__(self, catalogue: Catalogue, space: str, embed: Callable[[Sequence[bytes]], list[Embedded]]) -> None:
        self._catalogue = catalogue
        self._space = space
        self._embed = embed
        self._sources = PendingSources(catalogue)
        self._one = threading.Lock()

    def everything(self, until: int) -> None:
        """Embed all that waits since writes up to `until`; raises `CollectionError` if it can't be stored."""
        while self.piece(until=until):
            pass

    def piece(self, *, until: int | None = None) -> bool:
        """Embed some of what waits, the longest waiting first; False if nothing does."""
        with self._one:
            waiting = self._catalogue.pending(self._space, limit=PIECE, until=until)
            if not waiting:
                return False
            failed: list[tuple[Pending, str]] = []
            for some in self._read(waiting, failed):
                self._store(some, failed)
            if failed:
                self._catalogue.fail_pending(self._space, failed)
            return True

    def in_background(self, seconds: float) -> bool:
        """Embed what waits for so long, unless another process does; whether there may be more to do at once."""
        if not self._catalogue.pending(self._space, limit=1):
            self._catalogue.settle(self._space)  # the last that waited may have been deleted
            return False
        deadline = time.monotonic() + seconds
        with filling_lock(self._catalogue.folder, self._space, shared=False) as alone:
            while alone and self.piece():
                if time.monotonic() > deadline:
                    return True
        return False

    def _read(
        self, waiting: Sequence[Pending], failed: list[tuple[Pending, str]]
    ) -> Iterator[list[tuple[Pending, Picture]]]:
        """Pictures, as many at a time as memory is to hold; what can't be read goes to `failed`."""
        held: list[tuple[Pending, Picture]] = []
        for pending in waiting:
            try:
                held.append((pending, self._sources.read(pending)))
            except UnreadableFile as error:
                failed.append((pending, str(error)))
            if sum(len(picture.content) for _, picture in held) >= _PIECE_BYTES:
                yield held
                held = []
        if held:
            yield held

    def _store(self, some: Sequence[tuple[Pending, Picture]], failed: list[tuple[Pending, str]]) -> None:
        outputs = self._embed([picture.content for _, picture in some])
        rows: list[int] = []
        digests, vectors = [], []
        for (pending, picture), one in zip(some, outputs, strict=True):
            if isinstance(one, ImageError):
                failed.append((pending, str(one)))
            else:
                rows.append(pending.row)
                digests.append(picture.sha256)
                vectors.append(one.embedding)
        if rows:
            self._catalogue.fill(self._space, rows, digests, np.stack(vectors))


@contextmanager
def filling_lock(folder: Path, space: str, *, shared: bool) -> Iterator[bool]:
    """The lock of those who fill a space in the background; gives whether it was to be had.

    Commands wait for it and share it, a worker's keeper has it alone or not at all: so the same is not embedded twice.
    The system frees the lock of a process that dies. A search does not ask for it, as it can't wait.
    """
    handle = os.open(folder / f"{space[:16]}.filling.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
