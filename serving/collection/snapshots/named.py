"""Snapshots that a collection keeps by name, in the folder `snapshots` beside its catalogue.

`NAME.json` says which file the snapshot is, its length and its SHA-256. It is written when that file is whole and
synced, so a snapshot exists whole or not at all; when it is saved again under the same name, the old one stays until
the new one is complete. The next save removes what a killed process left. Names are never paths. One process at a time
may write (`serving.collection.snapshots.jobs`).
"""

import logging
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from core.files.durable import publish_file, sha256_of
from core.files.permissions import make_folder
from serving.collection.catalogue.interface import Catalogue
from serving.collection.errors import SnapshotError

FOLDER = "snapshots"
MOST = 100  # names, so that no one fills a disk by choosing new ones
RESERVE = 64 << 20  # bytes of the disk that are to stay free
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


_FILE = re.compile(r"[.][0-9a-f]+[.]sqlite")  # behind the name
_LOG = logging.getLogger(__name__)
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


@dataclass(frozen=True)
class Kept:
    """A snapshot that is kept; `created` is in milliseconds since 1970."""

    name: str
    file: str
    items: _Number
    bytes: _Number
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created: _Number


class NamedSnapshots:
    """The snapshots of the collection in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def listed(self) -> list[Kept]:
        """All that can be read, by name; one whose entry is broken hides no other."""
        found = []
        for name in self.names():
            try:
                found.append(_read(self._entry(name)))
            except SnapshotError as error:
                _LOG.warning("%s", error)
        return found

    def names(self) -> list[str]:
        """The names of all, also of those whose entries can't be read."""
        return sorted(path.stem for path in self.folder.glob("*.json") if _NAME.fullmatch(path.stem))

    def find(self, name: str) -> Kept | None:
        """The snapshot of this name."""
        check_name(name)
        path = self._entry(name)
        return _read(path) if path.is_file() else None

    def save(self, catalogue: Catalogue, name: str) -> Kept:
        """Write the snapshot `name`, in place of an older one. Raises `CollectionError` or OSError."""
        check_name(name)
        make_folder(self.folder)
        self._clear()
        file = self.folder / f"{name}.{secrets.token_hex(4)}.sqlite"
        try:
            items = catalogue.snapshots.save(file)
            size, now = file.stat().st_size, time.time_ns() // 1_000_000
            kept = Kept(name, file.name, items, size, sha256_of(file), now)
            publish_file(self._entry(name), lambda partial: partial.write_bytes(msgspec.json.encode(kept)))
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        self._clear()
        return kept

    def verified(self, name: str) -> Path:
        """The file of a snapshot, after comparing its digest with what was written. Raises `SnapshotError`."""
        kept = self.find(name)
        if kept is None:
            raise SnapshotError(f"there is no snapshot {name!r}")
        path = self.folder / kept.file
        same = path.is_file() and not path.is_symlink() and path.stat().st_size == kept.bytes
        if not same or sha256_of(path) != kept.sha256:
            raise SnapshotError(f"snapshot {name!r} is damaged: its file is not the one that was written")
        return path

    def remove(self, name: str) -> None:
        """Remove a snapshot, also one whose entry is broken. Raises `SnapshotError` if there is none of this name."""
        check_name(name)
        try:
            self._entry(name).unlink()
        except FileNotFoundError as error:
            raise SnapshotError(f"there is no snapshot {name!r}") from error
        self._clear()

    def _entry(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _clear(self) -> None:
        """Remove files that no entry names; those that may be of a broken entry stay."""
        listed = self.listed()
        named = {kept.file for kept in listed}
        broken = set(self.names()) - {kept.name for kept in listed}
        for path in [*self.folder.glob("*.sqlite"), *self.folder.glob(".*.sqlite.partial*")]:
            if path.name not in named and not any(_is_file_of(path.name, name) for name in broken):
                path.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise `SnapshotError` unless a snapshot may have this name."""
    if not _NAME.fullmatch(name):
        raise SnapshotError(
            f"a snapshot can't be called {name[:80]!r}: it takes 1 to 64 letters, digits, '.', '_' and '-', "
            "and begins with a letter or a digit"
        )


def room_lacking(folder: Path, needed: int, *, reserve: int = RESERVE) -> int:
    """How many bytes the disk of `folder` is short of to take `needed` more and keep `reserve` free."""
    return max(0, needed + reserve - shutil.disk_usage(folder).free)


def _read(path: Path) -> Kept:
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, ValueError, RecursionError) as error:
        raise SnapshotError(f"the entry of snapshot {path.stem!r} can't be read: remove it ({error})") from error
    if kept.name != path.stem or not _is_file_of(kept.file, kept.name):
        raise SnapshotError(f"the entry of snapshot {path.stem!r} names another snapshot or file: remove it")
    return kept


def _is_file_of(file: str, name: str) -> bool:
    """Whether a file's name is one that `save` gives: never that of a path elsewhere."""
    return file.startswith(name) and _FILE.fullmatch(file, len(name)) is not None
