"""Brings Milvus up to what the catalogue has: what was written since the recorded position, or everything anew.

The position is recorded only after everything is sent, so a process that dies halfway leaves work that the next one
repeats. Workers of a collection are on one machine, as SQLite's log is shared memory, and take turns by a lock file,
which a dead process loses. What it had sent may still arrive, and does no harm
(`serving.collection.index.milvus.entities`). A rebuild fills a new Milvus collection beside the one in use and then
switches. It happens if Milvus has nothing, less than the catalogue, or a position that the catalogue does not know:
after a restore, a loss, or with a folder put back.
"""

import hashlib
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from core.files.durable import publish_text
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Census
from serving.collection.errors import ChangesForgotten
from serving.collection.index.milvus.entities import Entities
from serving.collection.locks import collection_lock

LOCK_NAME = "milvus.lock"
IDENTITY_NAME = "milvus.id"
_log = logging.getLogger(__name__)
_PART_BYTES = 32 << 20
_SUPERFLUOUS = 1_000  # this many entities that are no longer live may stay, or up to a tenth of all
_MANY = 10_000  # this much more is read in parts, as a rebuild does, not at once


class Pushed(NamedTuple):
    """Milvus has every write up to `seq`; `dim` is D of the vectors, 0 where there are none and never were."""

    seq: int
    dim: int


class Tail:
    """Sends what Milvus lacks. For one thread of its own, as it must read what is newer than a search's moment."""

    def __init__(self, catalogue: Catalogue, release: str, entities: Entities) -> None:
        self._catalogue = catalogue
        self._release = release
        self._entities = entities
        self._dim = 0

    def push(self, *, verify: bool = False) -> Pushed:
        """Bring Milvus up to the last write; with `verify`, also check that it has as many as the catalogue."""
        with alone(self._catalogue.folder):
            if verify:
                self._entities.load()
            held = self._entities.position()
            if verify and held is not None and self._lags_far():
                held = None
            while True:
                now = self._catalogue.vectors.sequence(self._release)
                if held == now:
                    if not verify or self._whole(now):
                        return Pushed(now, self._known_dim())
                    held, verify = None, False
                held = self._rebuild() if held is None or held > now else self._send(held)
                if held is not None and not self._known_dim():
                    return Pushed(held, 0)

    def _send(self, held: int) -> int | None:
        """Send what changed; the new position, or None if that is no longer known."""
        try:
            changes = self._catalogue.vectors.changes_since(self._release, held)
        except ChangesForgotten:
            return None
        self._entities.put(changes.rows, changes.vectors, changes.seq)
        self._entities.remove(changes.rows, changes.seq)
        self._entities.remove(changes.deleted, changes.seq + 1)
        self._entities.set_position(changes.seq, self._known_dim())
        return changes.seq

    def _rebuild(self) -> int:
        """Send everything to a new Milvus collection, then switch to it."""
        census = self._catalogue.vectors.census(self._release)
        self._dim = census.dim
        if not census.dim:
            self._entities.drop()
            return census.seq
        if len(census.rows):
            _log.info("%d vectors go to Milvus", len(census.rows))
        fresh = self._entities.begin(census.dim)
        self._fill(fresh, census)
        self._entities.set_position(census.seq, census.dim, into=fresh)
        self._entities.publish(fresh)
        return census.seq

    def _fill(self, fresh: str, census: Census) -> None:
        step = max(1, _PART_BYTES // (4 * census.dim))
        for start in range(0, len(census.rows), step):
            part = census.rows[start : start + step]
            rows, vectors = self._catalogue.vectors.at(part, self._release, until=census.seq)  # newer ones come later
            self._entities.put(rows, vectors, census.seq, into=fresh)

    def _known_dim(self) -> int:
        self._dim = self._dim or self._catalogue.vectors.census(self._release).dim
        return self._dim

    def _lags_far(self) -> bool:
        return len(self._catalogue.vectors.census(self._release).rows) > 2 * self._entities.count() + _MANY

    def _whole(self, seq: int) -> bool:
        """Whether Milvus plausibly has all that it says; superfluous entities may hide a loss of as many others."""
        census = self._catalogue.vectors.census(self._release)
        live, count = len(census.rows), self._entities.count()
        whole = live <= count <= live + max(_SUPERFLUOUS, live // 10)
        if not whole and census.seq == seq:
            _log.warning("Milvus has %d vectors of %d: they are sent anew", count, live)
        return whole or census.seq != seq


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process sends this collection's vectors; the system frees the lock of one that dies."""
    with collection_lock(folder / LOCK_NAME):
        yield


def name_in_milvus(folder: Path, release: str) -> str:
    """What a release of the collection in this folder is called in Milvus.

    It stays when the folder is moved; a copy of the folder, or one put back from a backup, has another name.
    """
    path = folder / IDENTITY_NAME
    with alone(folder):
        if not path.exists():
            publish_text(path, uuid.uuid4().hex)
        identity = f"{path.read_text()} {path.stat().st_ino} {release}"
    return f"simclr_{hashlib.sha256(identity.encode()).hexdigest()[:24]}"
