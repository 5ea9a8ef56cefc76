"""Whether any worker of a version handles requests just now: TorchServe tells only how many wait.

Each worker holds a shared lock on its version's file while it handles a batch, which costs some microseconds; whoever
can lock the file for itself alone knows that nobody does. The kernel frees the lock of a process that dies.
The files lie in the folder that the environment variable SIMCLR_BUSY names (none: nobody wants to know).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.files.locks import give, locked, open_lock_file, take

BUSY_VARIABLE = "SIMCLR_BUSY"


class Busy:
    """A worker's side of it."""

    def __init__(self, version: int | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """Without a version there is nobody to tell."""
        folder = environment.get(BUSY_VARIABLE)
        self._file = open_lock_file(busy_file(Path(folder), version)) if folder and version is not None else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Say that this process works, meanwhile."""
        if self._file is None:
            yield
            return
        take(self._file, shared=True)
        try:
            yield
        finally:
            give(self._file)


def busy_file(folder: Path, version: int) -> Path:
    """The file that the workers of a version lock."""
    return folder / f"busy-{version}"


def is_busy(folder: Path, version: int) -> bool:
    """Whether a worker of this version handles a batch at this moment."""
    with locked(busy_file(folder, version), wait=False) as handle:
        return handle is None
