"""Reading pictures where a catalogue says that they lie (`core.images.places`): files, and members of zip archives.

An archive stays open from one reading to the next, because its table of contents takes long to read; one that was
replaced is opened anew. Whether a file is still the one that was stored is for the caller to check.
"""

import os
import threading
from pathlib import Path

from cachetools import LRUCache

from core.images.folders import FolderSource, SourceError, UnreachableFile, UnreadableFile, ZipSource, unreadable
from core.images.places import archive_and_member, earlier_readings

_OPEN_ARCHIVES = 4
_Stamp = tuple[int, int, int]


class StoredFiles:
    """Reads files by their paths; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._archives: LRUCache[str, tuple[_Stamp, ZipSource]] = LRUCache(_OPEN_ARCHIVES)

    def read(self, path: str) -> bytes:
        """The bytes at a path; `UnreadableFile` says why not, `UnreachableFile` why not now.

        The path comes from the catalogue, never a request.
        """
        try:
            return self._read(path)
        except UnreadableFile:
            raise
        except (OSError, ValueError) as error:  # ValueError of a name that can be no path
            raise unreadable(error) from error

    def _read(self, path: str) -> bytes:
        within = archive_and_member(path)
        if within is not None:
            archive, member = within
            source = self._archive(archive)
            if source is None:
                raise UnreadableFile(f"{archive} is no zip archive, or is gone")
            return source.read(member)
        file = Path(path)
        if not os.path.lexists(path):
            for archive, member in earlier_readings(path):
                if (source := self._archive(archive)) is not None:
                    return source.read(member)
        return FolderSource(file.parent).read(file.name)

    def _archive(self, path: str) -> ZipSource | None:
        """The archive, open; None if the path is not that of a zip."""
        try:
            about = os.stat(path)
        except OSError as error:
            _raise_if_unreachable(error)
            return None
        stamp = (about.st_ino, about.st_size, about.st_mtime_ns)
        with self._lock:
            held = self._archives.get(path)
            if held is None or held[0] != stamp:
                try:
                    held = (stamp, ZipSource(Path(path)))
                except SourceError as error:
                    _raise_if_unreachable(error)
                    return None
                self._archives[path] = held
            return held[1]


def _raise_if_unreachable(error: Exception) -> None:
    """Raise `UnreachableFile` if nobody can tell now whether the path is that of a zip: it may not pass as a file's."""
    reason = unreadable(error)
    if isinstance(reason, UnreachableFile):
        raise reason from error
