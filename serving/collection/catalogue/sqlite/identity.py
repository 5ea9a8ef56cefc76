"""Whether a path still names the file that was opened: SQLite goes on writing to one that was deleted or replaced.

The log counts as well. As long as a connection is open nobody has reason to remove it, and what was committed since the
last checkpoint is in it alone.
"""

import os
from pathlib import Path
from typing import NamedTuple

from serving.collection.errors import CatalogueGone


class Identity(NamedTuple):
    """Which file a path names; the same after it was moved away and back."""

    device: int
    inode: int

    @classmethod
    def of(cls, path: Path | str) -> "Identity | None":
        """That of the file at a path; None if there is none."""
        try:
            about = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(about.st_dev, about.st_ino)


class Opened:
    """The files of one connection: the database, and the log from when it is first seen.

    `constant` says that SQLite takes them for files that never change, so that somebody else has to look.
    """

    def __init__(self, path: Path, database: Identity | None, log: Identity | None, *, constant: bool = False) -> None:
        self._path = os.fspath(path)  # stat of a text takes 2 us, of a Path 13, and every search does it twice
        self._log_path = f"{path}-wal"
        self._database = database
        self.log = log
        self._state = self._state_now() if constant else None

    @property
    def outdated(self) -> bool:
        """Whether the connection has to be opened again, as a file that was taken for constant has changed."""
        return self._state is not None and self._state != self._state_now()

    def check(self) -> None:
        """Raise `CatalogueGone` unless both are where they were."""
        if Identity.of(self._path) != self._database:
            raise CatalogueGone(
                f"{self._path} was deleted or replaced while it was open: put it back, or start again what uses it"
            )
        log = Identity.of(self._log_path)
        if self.log is not None and log != self.log:
            raise CatalogueGone(
                f"{self._log_path} was deleted or replaced while it was open, and the latest writes with it: "
                f"start again what uses it"
            )
        self.log = log

    def _state_now(self) -> list[tuple[int, int] | None]:
        return [_state_of(self._path), _state_of(self._log_path)]


def _state_of(path: str) -> tuple[int, int] | None:
    """Length and time of change; None of a file that is not there."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return about.st_size, about.st_mtime_ns
