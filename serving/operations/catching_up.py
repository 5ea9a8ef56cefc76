"""Embeds what waits for a vector in one space, with the worker's own embedder, in pieces.

Before a search in a complete space, the worker that serves it embeds all that was waiting when the search came. The
keeper does so once a second, and fills a space that is not complete yet. Pictures that are out of reach, as on a disk
that is not mounted, hold up no search: they are passed over, and the keeper tries them again every minute. So is all
that waits in a collection that can only be read. What waits, and why, is in `serving.collection.catalogue.spaces`;
`serving.jobs.reembed` fills a space without a server.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.images.decode import ImageError
from core.images.folders import UnreachableFile, UnreadableFile
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Pending
from serving.collection.errors import CatalogueReadOnly
from serving.collection.locks import collection_lock
from serving.collection.pictures.pending import PendingSources, Picture
from serving.inference.embedder import Embedded

PIECE = 32  # items read, embedded and stored at once
_PIECE_BYTES = 32 << 20  # of their pictures, or of one
_LAST = 2**62  # above every row
_PAUSE_SECONDS = 60.0  # until what was out of reach is tried again
_LOG = logging.getLogger(__name__)


class CatchingUp:
    """What waits in `space`, and `embed` (image files to embeddings) to do it with. Threads take turns."""

    def __init__(self, catalogue: Catalogue, space: str, embed: Callable[[Sequence[bytes]], list[Embedded]]) -> None:
        self._catalogue = catalogue
        self._space = space
        self._embed = embed
        self._sources = PendingSources(catalogue)
        self._one = threading.Lock()
        self._passed: Pending | None = None  # up to here only what is out of reach waits
        self._again_at = 0.0

    def behind(self, until: int | None) -> bool:
        """Whether the space is complete, and yet something in reach waits that was written up to `until`.

        Asked before every search.
        """
        if not self._catalogue.spaces.behind(self._space, until=until):
            return False
        passed = self._passed
        return passed is None or bool(self._catalogue.spaces.pending(self._space, limit=1, after=passed, until=until))

    def everything(self, until: int) -> None:
        """Embed all that waits and was written up to `until`; raises `CollectionError` if it can't be stored,
        unless that is because the collection is read-only.
        """
        while self.piece(until=until):
            pass

    def piece(self, *, until: int | None = None) -> bool:
        """Embed some of what waits, oldest first; False if nothing does but what is passed over."""
        with self._one:
            waiting = self._catalogue.spaces.pending(self._space, limit=PIECE, after=self._passed, until=until)
            if not waiting:
                return False
            failed: list[tuple[Pending, str]] = []
            unreachable: list[str] = []
            try:
                for some in self._read(waiting, failed, unreachable):
                    self._store(some, failed)
                if failed:
                    self._catalogue.spaces.fail(self._space, failed)
            except CatalogueReadOnly as error:
                self._pass_over(replace(waiting[-1], row=_LAST, seq=self._catalogue.last_write()), str(error))
                return False
            if unreachable:
                self._pass_over(waiting[-1], unreachable[0])
            return True

    def in_background(self, seconds: float) -> bool:
        """Embed what waits, for this long, unless another process does; returns whether more may be waiting."""
        if not self._catalogue.spaces.pending(self._space, limit=1):
            self._catalogue.spaces.settle(self._space)  # the last that waited may have been deleted
            return False
        deadline = time.monotonic() + seconds
        with filling_lock(self._catalogue.folder, self._space, shared=False) as alone:
            with self._one:
                self._passed = self._passed if time.monotonic() < self._again_at else None
            while alone and self.piece():
                if time.monotonic() > deadline:
                    return True
        return False

    def _pass_over(self, last: Pending, reason: str) -> None:
        """What waits up to `last` can't be embedded now, and is not tried again before the next round, whoever asks."""
        if self._passed is None:
            _LOG.warning("pictures that wait can't be embedded now, and are tried again: %s", reason)
        self._passed, self._again_at = last, time.monotonic() + _PAUSE_SECONDS

    def _read(
        self, waiting: Sequence[Pending], failed: list[tuple[Pending, str]], unreachable: list[str]
    ) -> Iterator[list[tuple[Pending, Picture]]]:
        """Pictures, at most `_PIECE_BYTES` or one at a time; why others can't be read goes to the two lists."""
        held: list[tuple[Pending, Picture]] = []
        for pending in waiting:
            try:
                held.append((pending, self._sources.read(pending)))
            except UnreachableFile as error:
                unreachable.append(str(error))
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
            self._catalogue.spaces.fill(self._space, rows, digests, np.stack(vectors))


@contextmanager
def filling_lock(folder: Path, space: str, *, shared: bool) -> Iterator[bool]:
    """The lock of those who fill a space in the background; gives whether it was to be had.

    Commands wait for it and share it, a worker's keeper has it alone or not at all: so the same is not embedded twice.
    The system frees the lock of a process that dies. A search does not ask for it, as it can't wait.
    """
    with collection_lock(folder / f"{space[:16]}.filling.lock", shared=shared, wait=shared) as held:
        yield held
