"""The one lock between processes: `flock` on a file of its own, which the kernel frees when its holder dies.

So no lock is ever stale. Over NFS Linux turns it into a POSIX lock, which works between machines, too. Locks of single
bytes in a file, which many tasks of one job need, are in `serving.jobs.bulk.locks`.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.files.permissions import file_mode

_POLL_SECONDS = 0.05


def take(handle: int, *, shared: bool = False, wait: bool | float = True) -> bool:
    """Lock an open file, with others who share it or alone; returns whether it could be had.

    `wait` is True for as long as it takes, False for not at all, or a number of seconds.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    if wait is True:
        fcntl.flock(handle, how)
        return True
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)


def give(handle: int) -> None:
    """Unlock an open file that stays open; closing it unlocks it as well."""
    fcntl.flock(handle, fcntl.LOCK_UN)


def open_lock_file(path: Path) -> int:
    """Open a lock file, which is made if it is missing; returns its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT, file_mode())


def _open_to_share(path: Path) -> int:
    """Open a lock file for a shared lock, which needs no right to write where the file is there."""
    try:
        return open_lock_file(path)
    except OSError:
        if not path.is_file():
            raise
        return os.open(path, os.O_RDONLY)


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool | float = True) -> Iterator[int | None]:
    """Hold the lock of a file, which is made if it is missing; `shared` and `wait` are those of `take`.

    Yields the file's descriptor, which child processes may inherit to hold the lock as well, or None if another
    process has the lock.
    """
    handle = _open_to_share(path) if shared else open_lock_file(path)
    try:
        yield handle if take(handle, shared=shared, wait=wait) else None
    finally:
        os.close(handle)
