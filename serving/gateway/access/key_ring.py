"""The keys that are valid just now: those of the key file, read again when it has changed."""

import logging
import os
from pathlib import Path

from serving.gateway.access.callers import Caller
from serving.gateway.access.key_file import KeyFileError, read
from serving.gateway.access.keys import Key, id_in

_SECONDS = 1.0  # between two looks at the file
_Seen = tuple[int, int, int] | None

logger = logging.getLogger(__name__)


class KeyRing:
    """The keys of a file, looked at once a second at most, when a key is asked for.

    From the moment that there is a key file, keys are `required`, and that never ends while we run: neither revoking
    the last key nor a file that is gone opens the door. A file that breaks leaves the last good keys valid. Raises
    `KeyFileError` if it is broken to begin with. `required` makes keys required without a file, too.
    """

    def __init__(self, path: Path, *, required: bool = False) -> None:
        self._path = path
        self._text = os.fspath(path)  # stat of a text is several times as fast as of a path
        self._seen = self._look()
        self._keys: dict[str, tuple[Key, Caller]] = {}
        self._next = 0.0
        self.required = required
        found = read(path)
        if found is not None:
            self._hold(found.keys)

    def __len__(self) -> int:
        return len(self._keys)

    def refresh(self, now: float) -> None:
        """Read the file again if it has changed; `now` is a monotonic time in seconds."""
        if now < self._next:
            return
        self._next = now + _SECONDS
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen  # before reading: what comes after this look is found by the next one
        self._reread()

    def caller(self, text: bytes) -> Caller | None:
        """Who has this key; None if it is not valid."""
        found = self._keys.get(id_in(text) or "")
        if found is None or not found[0].fits(text):
            return None
        return found[1]

    def _reread(self) -> None:
        self.required = True
        try:
            found = read(self._path)
            if found is None:
                raise KeyFileError(f"the key file {self._path} is gone")
        except KeyFileError as error:
            logger.error("%s; the keys that were valid before stay so", error)
            return
        self._hold(found.keys)
        logger.info("read %d keys from %s", len(self._keys), self._path)

    def _hold(self, keys: tuple[Key, ...]) -> None:
        self._keys = {key.id: (key, key.caller()) for key in keys}
        self.required = True

    def _look(self) -> _Seen:
        """What changes when the file does; None if it is not there."""
        try:
            there = os.stat(self._text)
        except OSError:
            return None
        return there.st_ino, there.st_mtime_ns, there.st_ctime_ns
