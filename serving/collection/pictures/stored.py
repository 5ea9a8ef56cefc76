"""Reading files by the paths that a catalogue has of them: a file, or archive.zip!member.

An archive stays open from one reading to the next, because its table of contents takes long to read; one that was
replaced is opened anew. Whether a file is still the one that was stored is for the caller to check.
"""

import os
import threading
from pathlib import Path

from cachetools import LRUCache

from core.images.folders import FolderSource, SourceError, UnreachableFile, UnreadableFile, ZipSource, unreadable

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
        archive, bang, member = path.partition("!")
        try:
            if bang and (source := self._archive(archive)) is not None:
                return source.read(member)
            file = Path(path)
            return FolderSource(file.parent).read(file.name)
        except UnreadableFile:
            raise
        except (OSError, ValueError) as error:  # ValueError of a name that can be no path
            raise unreadable(error) from error

    def _archive(self, path: str) -> ZipSource | None:
        """The archive, open; None if the path is not that of a zip, as a file's own name may have a "!"."""
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
