"""Whether any worker of a version is handling requests just now; TorchServe reports only how many wait.

Each worker holds a shared lock on its version's file while it handles a batch, which costs some microseconds. Whoever
gets an exclusive lock on the file knows that no worker is busy. The files lie in the folder that the environment
variable SIMCLR_BUSY names; without it nothing is locked.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from core.files.locks import give, locked, open_lock_file, take

BUSY_VARIABLE = "SIMCLR_BUSY"


class Busy:
    """A worker's side: it says when it is busy."""

    def __init__(self, version: int | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """Without a version nothing is locked."""
        folder = environment.get(BUSY_VARIABLE)
        self._file = open_lock_file(busy_file(Path(folder), version)) if folder and version is not None else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be busy within the block."""
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
