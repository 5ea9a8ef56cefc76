"""Locks in a collection's folder; where a full or read-only disk keeps one from being made, our own error says so."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core.files.locks import locked
from serving.collection.errors import failed_to_write


@contextmanager
def collection_lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """`core.files.locks.locked`; yields whether the lock was to be had. Raises `CatalogueError` if it can't be made."""
    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(path, shared=shared, wait=wait))
        except OSError as error:
            raise failed_to_write(error, f"the lock {path} can't be taken") from error
        yield lock is not None
