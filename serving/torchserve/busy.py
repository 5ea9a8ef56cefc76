"""What the workers of a version are doing just now; TorchServe reports only how many requests wait.

Each worker holds a shared lock on its version's file while it handles a batch, which costs some microseconds. Whoever
gets an exclusive lock on the file knows that no worker is busy. Each also keeps a small file of its own, `batch-<pid>`,
that says how many batches it has begun, and when the last began and ended. The files lie in the folder that the
environment variable SIMCLR_BUSY names; without it there are none.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.files.locks import give, locked, open_lock_file, take

BUSY_VARIABLE = "SIMCLR_BUSY"


@dataclass(frozen=True)
class Batches:
    """A worker's batches: how many it has begun, and when (unix seconds) the last began, and the last one ended."""

    count: int = 0
    begun: float = 0.0
    ended: float = 0.0

    @property
    def busy(self) -> bool:
        """Whether it has not ended the last one."""
        return self.begun > self.ended


class Busy:
    """A worker's side: it says when it is busy."""

    def __init__(self, version: int | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """Without a version nothing is locked or written."""
        folder = environment.get(BUSY_VARIABLE)
        self._file = self._own = None
        self._batches = Batches()
        if folder and version is not None:
            self._file = open_lock_file(busy_file(Path(folder), version))
            self._own = open_lock_file(Path(folder, f"batch-{os.getpid()}"))
            self._say(self._batches)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be busy within the block."""
        if self._file is None:
            yield
            return
        last = self._batches
        self._say(Batches(last.count + 1, time.time(), last.ended))
        take(self._file, shared=True)
        try:
            yield
        finally:
            give(self._file)
            self._say(Batches(last.count + 1, self._batches.begun, time.time()))

    def _say(self, batches: Batches) -> None:
        assert self._own is not None
        self._batches = batches
        os.pwrite(self._own, b"%12d %20.6f %20.6f" % (batches.count, batches.begun, batches.ended), 0)


def busy_file(folder: Path, version: int) -> Path:
    """The file that the workers of a version lock."""
    return folder / f"busy-{version}"


def is_busy(folder: Path, version: int) -> bool:
    """Whether a worker of this version handles a batch at this moment."""
    with locked(busy_file(folder, version), wait=False) as handle:
        return handle is None


def batches_of(folder: Path, pid: int) -> Batches | None:
    """What a worker says of its batches; None if it says nothing, as in older archives."""
    try:
        count, begun, ended = (folder / f"batch-{pid}").read_bytes().split()
    except (FileNotFoundError, ValueError):
        return None
    return Batches(int(count), float(begun), float(ended))
