"""Which of a server's workers may use every core, so that a lone request need not wait for one while others idle.

Each worker has its share of the cores. One that begins a pass while no other runs takes the lock, and may spread the
pass over all cores; whoever comes meanwhile keeps to its share. The kernel frees the lock of a process that dies.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CoresLock:
    """A lock file that the workers of one server share."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock if nobody else does; gives whether that is so."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
