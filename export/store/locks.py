"""Who may change a folder of the store: one process at a time, on one machine or on several that share it.

A lock is on a file of its own and goes with the process that holds it, so none is ever stale. It is not on the folder
itself, for over NFS Linux locks only what is open for writing.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.releases.model_store import ModelStore
from export.store.errors import StoreError

PUBLISHING = ".lock"  # in a name's folder: held while a release is filled
_CHANGING = ".changing.lock"  # there: while aliases are changed and releases removed
ARCHIVING = ".archiving.lock"  # in the store's folder: shared by those who build archives


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, which is made if need be; yields whether it could be had: without `wait` it may not.

    Several may hold it `shared`, and nobody else then.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _had(handle, how)
    finally:
        os.close(handle)


@contextmanager
def alone(store: ModelStore) -> Iterator[None]:
    """Hold the lock of a name: aliases are changed and releases removed by one process at a time."""
    if not store.home.is_dir():
        raise StoreError(f"{store.root} has no releases of {store.name!r}")
    with locked(store.home / _CHANGING):
        yield


def _had(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    return True
