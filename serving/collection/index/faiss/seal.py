"""A note beside a base that says in which state its files were found to be what their digests say.

Hashing a base of a million vectors takes as long as reading it, so it is done once, not at every start: whoever has
compared the digests notes inode, size and times of change of each file. The kernel sets a file's ctime whenever anyone
writes to it, and nobody else can, so a file in that state still has that content. A copy, such as one restored from a
backup, has another state and is hashed again. This does not notice a disk that gives back other bits than were written.
"""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from core.files.durable import publish_text, sha256_of
from core.files.json_text import json_text

_log = logging.getLogger(__name__)
# Times of change are as coarse as the kernel's tick, at most 10 ms: a younger file may change again and not show it.
_SETTLED_NS = 50_000_000


def is_whole(files: Sequence[Path], digests: Sequence[str], *, seal: Path) -> bool:
    """Whether each file has its SHA-256; files that were sealed in the state that they are in are not read."""
    if _sealed(seal) == _states(files, digests):
        return True
    settled = True
    before = _states(files, digests)
    for path, digest in reversed([*zip(files, digests, strict=True)]):  # the largest first: the others age meanwhile
        settled &= time.time_ns() - path.stat().st_ctime_ns > _SETTLED_NS
        if sha256_of(path) != digest:
            return False
    if settled and before == _states(files, digests):
        _write(seal, before)
    return True


def _states(files: Sequence[Path], digests: Sequence[str]) -> list[list[int | str]]:
    states = [path.stat() for path in files]
    return [
        [digest, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        for digest, state in zip(digests, states, strict=True)
    ]


def _sealed(seal: Path) -> object:
    try:
        return json.loads(seal.read_text())
    except (OSError, ValueError):
        return None


def _write(seal: Path, states: list[list[int | str]]) -> None:
    try:
        publish_text(seal, json_text(states))
    except OSError as error:
        _log.warning("%s can't be written, so the next start hashes the base again: %s", seal, error)
