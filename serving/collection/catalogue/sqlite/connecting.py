"""How a SQLite file is opened: to read and write, or to read alone where this process may not write.

Even a reader of a file in WAL mode writes, to the index of the log in shared memory. Where it may not, SQLite reads a
log whose index is there, as another process left or uses it. A file without a log is opened as one that never changes;
a log without an index is read into this process's memory. Of these last two SQLite does not notice that others write,
so `identity.Opened` looks at their times.
"""

import os
import time
from pathlib import Path
from urllib.parse import quote

import apsw

from core.files.permissions import file_mode
from serving.collection.errors import CatalogueError, CatalogueReadOnly

BUSY_MS = 10_000
_LOG_KEPT_BYTES = 64 << 20  # a long transaction's log is cut back to this at the next checkpoint


def connect(path: Path, *, create: bool) -> tuple[apsw.Connection, bool]:
    """A connection, and whether SQLite takes the file for one that never changes."""
    if not path.exists() and create and not _may_write(path.parent):
        raise CatalogueReadOnly(f"{path} can't be made: {path.parent} is not writable here")
    if path.exists() and not is_writable(path):
        return _connect_to_read(path)
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    new = not path.exists()
    db = apsw.Connection(str(path), flags=flags)
    if new:
        os.chmod(path, file_mode())  # of SQLite's own files, log and index have the mode of this one
    db.set_busy_timeout(BUSY_MS)
    if create:
        _use_log(db, path)
    db.pragma("journal_size_limit", _LOG_KEPT_BYTES)
    db.pragma("synchronous", "full")
    db.pragma("foreign_keys", True)
    db.pragma("user_version")  # from the first reading on it has a lock, and so nobody removes the log
    return db, False


def is_writable(path: Path) -> bool:
    """Whether this process may write to the file, and to its log and the log's index or where they are to be."""
    beside = [path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm")]
    return _may_write(path) and (_may_write(path.parent) or all(_may_write(file) for file in beside))


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=True)  # False also on a read-only disk


def _connect_to_read(path: Path) -> tuple[apsw.Connection, bool]:
    log, index = (path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))
    how = "" if index.exists() else "&vfs=unix-none" if log.exists() else "&immutable=1"
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro{how}"
    db = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    db.set_busy_timeout(BUSY_MS)
    if "unix-none" in how:
        db.pragma("locking_mode", "exclusive")  # the index of the log is then made in memory
    db.pragma("user_version")
    return db, bool(how)


def _use_log(db: apsw.Connection, path: Path) -> None:
    """WAL mode, for good. The change wants the file alone and does not wait for it as other statements do."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while db.pragma("journal_mode") != "wal":
        try:
            db.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise CatalogueError(f"{path} can't have a log: SQLite keeps it in another mode")
        time.sleep(0.005)
