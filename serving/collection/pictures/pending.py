"""The pictures of items that wait for a vector: read wherever they are kept, with the digest of what was read.

A file that is gone is distinguished from one that is out of reach for now, as on a disk that is not mounted: then
everything that was ingested together with it is missing as well, or nobody can tell.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from core.images.folders import UnreachableFile, UnreadableFile
from core.images.places import archive_and_member, earlier_readings
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Pending
from serving.collection.pictures.stored import StoredFiles


class Picture(NamedTuple):
    """The bytes of an image file, and their SHA-256."""

    sha256: bytes
    content: bytes


class PendingSources:
    """Reads the pictures of one catalogue's pending items; safe to use from several threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._files = StoredFiles()

    def read(self, pending: Pending) -> Picture:
        """The picture as it is now, which may be a newer one than was pending.

        `UnreadableFile` says why it can't be read, `UnreachableFile` that it may be readable another time.
        """
        if pending.path is None:
            kept = self._catalogue.items.kept_source(pending.row)
            if kept is None:
                raise UnreadableFile("its picture is no longer in the catalogue")
            return Picture(*kept)
        content = self._read(pending.id, pending.path)
        found = hashlib.sha256(content).digest()
        if found != pending.sha256:
            raise UnreadableFile(f"{pending.path} is no longer the file that was stored: ingest it again")
        return Picture(found, content)

    def _read(self, name: str, path: str) -> bytes:
        try:
            return self._files.read(path)
        except UnreadableFile as error:
            root = _root(name, path)
            if isinstance(error, UnreachableFile) or _is_there(root):
                raise
            raise UnreachableFile(f"{error} ({root} is empty or missing; is it mounted?)") from error


def _root(name: str, path: str) -> Path:
    """What the item was ingested from, as its id ends with its path inside that; else the folder of its file."""
    within = archive_and_member(path)
    if within is not None:
        return Path(within[0])
    for at, sign in enumerate(path):
        if sign in "/!" and name.endswith(path[at + 1 :]):  # earlier versions put a "!" between archive and member
            return Path(path[:at] or "/")
    archives = (archive for archive, _ in earlier_readings(path) if archive.lower().endswith(".zip"))
    return Path(next(archives, path)).parent


def _is_there(root: Path) -> bool:
    """Whether it is an archive, or a folder with something in it: an unmounted folder usually remains, but empty."""
    try:
        if not root.is_dir():
            return root.exists()
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
