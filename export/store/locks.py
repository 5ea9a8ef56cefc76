"""The locks of the model store: who may change a folder of it, on one machine or on several that share it.

Each is on a file of its own, not on the folder: over NFS Linux locks only what is open for writing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from core.files.locks import locked
from core.releases.model_store import ModelStore
from export.store.errors import StoreError

PUBLISHING = ".lock"  # in a name's folder: held while a release is filled
_CHANGING = ".changing.lock"  # in a name's folder: held while aliases change and releases are removed
ARCHIVING = ".archiving.lock"  # in the store's folder: shared by all who build archives


@contextmanager
def alone(store: ModelStore) -> Iterator[None]:
    """Hold the lock of a name: one process at a time changes its aliases and removes its releases."""
    if not store.home.is_dir():
        raise StoreError(f"{store.root} has no releases of {store.name!r}")
    with locked(store.home / _CHANGING):
        yield
