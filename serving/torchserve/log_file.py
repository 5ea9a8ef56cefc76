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


def _new_log() -> Path:
    """An empty file for a server whose log nobody asked for."""
    handle, name = tempfile.mkstemp(prefix="simclr-serve-", suffix=".log")
    os.close(handle)
    return Path(name)


class LogFile:
    """Copies pipes into a rotated file, line by line, until they end."""

    def __init__(self, path: Path | None = None) -> None:
        """A log of an earlier server becomes `<path>.1`; without a path the file is new, and temporary."""
        self.path = (path or _new_log()).resolve()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = _Owned(self.path, maxBytes=BYTES, backupCount=KEPT, encoding="utf-8", errors="replace")
        if self.path.stat().st_size:
            self._handler.doRollover()
        self._threads: list[threading.Thread] = []

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.path.stat().st_size

    def copy(self, pipe: IO[bytes]) -> None:
        """Copy this pipe from now on."""
        thread = threading.Thread(target=self._copy, args=(pipe,), daemon=True)
        thread.start()
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]

    def since(self, start: int) -> bytes:
        """What was written from this byte on; all of it if the file was rotated meanwhile."""
        content = self.path.read_bytes()
        return content[start:] if start <= len(content) else content

    def last_words(self, start: int = 0) -> str:
        """The end of the log, as an error quotes it, and where the log is."""
        lines = self.since(start).decode(errors="replace").splitlines()
        telling = [line for line in lines if "rror" in line or "xception" in line] or lines
        kept = "\n  ".join(telling[-8:])
        return f"; the end of its log, {self.path}:\n  {kept}"

    def close(self, *, keep: bool) -> None:
        """Write what is still in the pipes, whose other ends must be closed; without `keep` the files go."""
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._handler.close()
        if not keep:
            _remove(self.path)

    def _copy(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            text = line.decode(errors="replace").rstrip("\r\n")
            self._handler.handle(logging.makeLogRecord({"msg": text}))
        pipe.close()


def _remove(log: Path) -> None:
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
