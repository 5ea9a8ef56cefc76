"""A collection opened for one release: catalogue and index, taken in turns with what keeps them up to date.

With an embedder it also catches up with what others wrote without an embedding by this release.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.spaces import Space
from serving.collection.errors import CatalogueReadOnly
from serving.collection.index.choice import FAISS
from serving.collection.index.opening import open_index
from serving.inference.embedder import Embedded
from serving.operations.catching_up import CatchingUp

_LOG = logging.getLogger(__name__)


class OpenCollection:
    """The items of a folder, and their embeddings by one release (its digest)."""

    def __init__(self, folder: Path | str, release: str, *, index: str = FAISS) -> None:
        """Open the folder, or begin it. A base that is damaged is built again first, from the vectors in SQLite.

        A folder where nothing may be written can be read.
        """
        self.catalogue = open_catalogue(folder, create=True)
        self.release = release
        self.catching_up: CatchingUp | None = None
        self._space_open = False
        self._open_space()
        self.index = open_index(self.catalogue, release, index=index)
        self._turn = threading.RLock()

    def embed_with(self, embed: Callable[[Sequence[bytes]], list[Embedded]]) -> None:
        """Catch up with `embed` from now on, which must be this release's: image files to embeddings."""
        self.catching_up = CatchingUp(self.catalogue, self.release, embed)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Whatever is read or searched inside is of one moment, later than every write acknowledged before."""
        with self._turn, self.catalogue.reading():
            yield

    @contextmanager
    def caught_up_turn(self) -> Iterator[None]:
        """A turn in which every write acknowledged before has its vector, whichever release's worker made it.

        That is so of a complete space; one that is filling has what it has. A picture that is out of reach is not
        waited for. Not for use inside `turn`. Raises `CollectionError` if what waits can't be stored.
        """
        until: int | None = None
        while True:
            with self.turn():
                if self.catching_up is None or not self.catching_up.behind(until):
                    yield
                    return
                until = self.catalogue.last_write() if until is None else until  # what comes later could go on for ever
            self.catching_up.everything(until)

    def refresh(self) -> None:
        """Take over what was written, and a new base."""
        with self._turn:
            self.index.refresh()
        if not self._space_open:
            self._open_space()

    def describe(self) -> dict[str, Any]:
        """How many items there are, and how many of them can be found."""
        with self.turn():
            self.index.refresh()
            return {"items": self.catalogue.items.count(), "embedded": len(self.index), **self._space()}

    def stats(self) -> dict[str, Any]:
        """What the catalogue holds, and of the index that this worker searches; for use inside `turn`."""
        self.index.refresh()
        stats, sizes = self.catalogue.stats(), self.index.sizes
        return {
            "items": stats.items,
            "embedded": sizes.live,
            **self._space(),
            "labels": {label if label is not None else "": count for label, count in stats.labels.items()},
            "seq": stats.seq,
            "sources_kept": stats.sources_kept,
            "bytes_on_disk": stats.bytes_on_disk,
            "spaces": {space.release[:16]: _shown(space) for space in self.catalogue.spaces.all()},
            "vectors_by_release": {one.release[:16]: one.vectors for one in stats.releases},
            "index": {**self.index.facts, "base": sizes.base, "dead": sizes.dead, "delta": sizes.delta},
        }

    def _space(self) -> dict[str, Any]:
        space = self.catalogue.spaces.get(self.release)
        return _shown(space if space is not None else Space(self.release, complete=False, pending=0, failed=0))

    def _open_space(self) -> None:
        """Have the collection keep this release's space, now or, where it can't be written to, once it can."""
        try:
            space = self.catalogue.spaces.open(self.release)
        except CatalogueReadOnly:
            return
        self._space_open = True
        self._tell(space)

    @staticmethod
    def _tell(space: Space) -> None:
        if not space.complete:
            _LOG.warning("%d items have no embedding by this release yet: they are being embedded", space.pending)
        if space.failed:
            _LOG.warning("%d items can't be embedded by this release: see `simclr spaces`", space.failed)


def _shown(space: Space) -> dict[str, Any]:
    return {"complete": space.complete, "pending": space.pending, "failed": space.failed}
