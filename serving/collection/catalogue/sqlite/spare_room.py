"""Room set aside on the disk for deletions: a transaction needs some for its log, also one that makes room."""

import logging
import os
import shutil
from pathlib import Path

from core.files.permissions import file_mode

NAME = "catalogue.spare"
BYTES = 4 << 20  # the log of a deletion of some hundred items, or what waits in it to be moved into the file
_SHARE = 8  # of a disk that is nearly full when the collection is opened, no more than this part of what is free
_LOG = logging.getLogger(__name__)


def set_aside(folder: Path, *, share: int = _SHARE) -> None:
    """Have the file `catalogue.spare` take its room, if the disk has it to spare and the folder can be written to."""
    path = folder / NAME
    try:
        have = path.stat().st_size if path.exists() else 0
        wanted = min(BYTES, shutil.disk_usage(folder).free // share)
        if wanted > have:
            _allocate(path, wanted)
    except OSError as error:
        _LOG.debug("%s: %s", path, error)  # as before: deletions may then fail on a full disk


def give_up(folder: Path) -> bool:
    """Free that room; returns whether there was any."""
    path = folder / NAME
    try:
        had = path.stat().st_size > 0
        os.truncate(path, 0)
    except OSError:
        return False
    return had


def _allocate(path: Path, size: int) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, file_mode())
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        os.ftruncate(handle, 0)  # a part of it would keep others from the last bytes
        raise
    finally:
        os.close(handle)
