"""The server's log: what TorchServe and its workers say, in a file that is rotated.

They write into a pipe, and a thread of ours from there into the file, so all of it is in one place whoever said it.
"""

import logging
import os
import tempfile
import threading
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from core.files.permissions import file_mask

BYTES = 32 * 1024 * 1024
KEPT = 4  # older ones: <log>.1, the newest of them, to <log>.4
_END_SECONDS = 5.0


def new_log() -> Path:
    """An empty file for a server whose log nobody asked for."""
    handle, name = tempfile.mkstemp(prefix="simclr-serve-", suffix=".log")
    os.close(handle)
    return Path(name)


class LogFile:
    """Copies a pipe into a rotated file, line by line, until the pipe ends."""

    def __init__(self, path: Path, pipe: IO[bytes]) -> None:
        """A log of an earlier server becomes `<path>.1`."""
        self._handler = _Owned(path, maxBytes=BYTES, backupCount=KEPT, encoding="utf-8", errors="replace")
        if path.stat().st_size:
            self._handler.doRollover()
        self._thread = threading.Thread(target=self._copy, args=(pipe,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is still in the pipe, whose other end must be closed."""
        self._thread.join(_END_SECONDS)
        self._handler.close()

    def _copy(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            self._handler.emit(logging.makeLogRecord({"msg": text}))
        pipe.close()


def remove(log: Path) -> None:
    """Remove a log and the older ones beside it."""
    for path in (log, *(log.with_name(f"{log.name}.{number}") for number in range(1, KEPT + 1))):
        path.unlink(missing_ok=True)


class _Owned(RotatingFileHandler):
    """For its owner only; and a full disk costs lines, never the server, which would wait for the pipe."""

    def _open(self) -> TextIOWrapper:
        mode = 0o666 & ~file_mask()
        return open(  # type: ignore[return-value]
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, mode),
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Nothing: the line is lost."""
