"""Who may write what, among any number of processes on any number of machines that share a folder.

One file is locked by the byte: byte 0 for the job, byte k + 1 for shard k. The kernel gives a lock back when its
process ends in whatever way, so none is ever stale. Of a shard that is locked nobody else writes a file, so
that several commands on the same shards share them.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.jobs.bulk.errors import BulkError

FILE_NAME = "lock"
_JOB = 0
_LOG = logging.getLogger(__name__)


class Locks:
    """The locks of one process in a folder. A process must have one of these at a time: closing gives all back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, shard: int, *, wait: bool = True) -> bool:
        """Lock a shard, after whoever has it now; without `wait` tells whether it could be had at once."""
        return self._lock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), shard + 1)

    def give(self, shard: int) -> None:
        """Unlock a shard."""
        self._lock(fcntl.LOCK_UN, shard + 1)

    def take_job(self) -> None:
        """Lock the job, after whoever has it now."""
        if not self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _JOB):
            _LOG.info("waiting for the task that lists the images")
            self._lock(fcntl.LOCK_EX, _JOB)

    def close(self) -> None:
        """Give everything back."""
        os.close(self._file)

    def _lock(self, how: int, place: int) -> bool:
        """Whether it was done; not, if another process has the lock and it was not to be waited for."""
        try:
            fcntl.lockf(self._file, how, 1, place)
            return True
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise BulkError(
                f"can't lock {self._path}: {error}; choose an --out on a file system with POSIX locks"
            ) from error


@contextmanager
def job_locked(folder: Path) -> Iterator[None]:
    """Only one process at a time is in such a block."""
    locks = Locks(folder)
    try:
        locks.take_job()
        yield
    finally:
        locks.close()
