"""A collection opened for one release: catalogue and neighbours, taken in turns with what keeps them up to date.

Left out: operations on it (`serving.operations.finding`, `serving.operations.writing`, `serving.operations.showing`).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.collection.catalogue import Catalogue
from serving.collection.compaction import compact, ensure_base, wait_for_another
from serving.collection.errors import IndexUnusable
from serving.collection.neighbours import Neighbours

_LOG = logging.getLogger(__name__)

_ALL_IN_DELTA: dict[str, Any] = {"kind": "exact", "recall_at_10": 1.0}  # without a base, everything is compared


class OpenCollection:
    """The items of a folder, and their embeddings by one release (its digest)."""

    def __init__(self, folder: Path | str, release: str) -> None:
        """Open the folder, or begin it. A base that is damaged is built again first, from the vectors in SQLite."""
        self.catalogue = Catalogue(folder, create=True)
        self.release = release
        self.neighbours = open_neighbours(self.catalogue, release)
        self._turn = threading.RLock()
        items, here = self.catalogue.count(), len(self.neighbours)
        if here < items:
            _LOG.warning("%d of %d items have no embedding by this release: ingest them again", items - here, items)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Whatever is read or searched inside is of one moment, later than every write acknowledged before."""
        with self._turn, self.catalogue.reading():
            yield

    def refresh(self) -> None:
        """Take over what was written, and a new base."""
        with self._turn:
            self.neighbours.refresh()

    def describe(self) -> dict[str, Any]:
        """How many items there are, and how many of them can be found."""
        with self.turn():
            self.neighbours.refresh()
            return {"items": self.catalogue.count(), "embedded": len(self.neighbours)}

    def stats(self) -> dict[str, Any]:
        """What the catalogue holds, and of the index that this worker searches; for use inside `turn`."""
        self.neighbours.refresh()
        stats, sizes, base = self.catalogue.stats(), self.neighbours.sizes, self.neighbours.base
        index = _ALL_IN_DELTA if base is None else {"kind": base.kind, "recall_at_10": base.recall, **base.facts}
        return {
            "items": stats.items,
            "embedded": sizes.live,
            "labels": {label if label is not None else "": count for label, count in stats.labels.items()},
            "seq": stats.seq,
            "sources_kept": stats.sources_kept,
            "bytes_on_disk": stats.bytes_on_disk,
            "vectors_by_release": {one.release[:16]: one.vectors for one in stats.releases},
            "index": {**index, "base": sizes.base, "dead": sizes.dead, "delta": sizes.delta},
        }


def open_neighbours(catalogue: Catalogue, release: str) -> Neighbours:
    """The vectors of `release`, ready to search; a base that is missing or damaged is built again.

    Raises `CompactionError` where that is not possible.
    """
    ensure_base(catalogue, release)
    try:
        return Neighbours(catalogue, release)
    except IndexUnusable as error:
        _LOG.warning("%s; doing that now", error)
    if not compact(catalogue, release):
        wait_for_another(catalogue.folder)  # most likely another worker that found the same
    return Neighbours(catalogue, release)
