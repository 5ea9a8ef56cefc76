"""Who may write what, among any number of processes on any number of machines that share a folder.

One file is locked byte by byte: byte 0 for the job, byte k + 1 for shard k. The kernel frees a lock when its process
ends in any way, so none is ever stale. Only the holder of a shard's lock writes its files, so several commands on the
same shards share the work. (Other locks between processes are in `core.files.locks`; those lock whole files.)
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
    """The locks of one process in a folder. A process may have only one: closing it frees every lock."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, shard: int, *, wait: bool = True) -> bool:
        """Lock a shard, after whoever has it now; returns False if that is somebody else and `wait` is False."""
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
        """Free every lock."""
        os.close(self._file)

    def _lock(self, how: int, place: int) -> bool:
        """Returns False if another process has the lock and it was not to be waited for."""
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
    """Hold the job's lock: only one process at a time is in such a block."""
    locks = Locks(folder)
    try:
        locks.take_job()
        yield
    finally:
        locks.close()
