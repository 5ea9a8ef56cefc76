"""What the servers that follow a model store say about themselves, in a small file each, for people and programs.

`model_store/<name>/servers/<host>-<pid>.json` is replaced as a whole whenever something changes and every few seconds,
and removed when the server stops. It is a sign of life, so it is not synced to disk. Servers that were started with an
archive of their own follow no store, and have no file.
"""

import logging
import os
import socket
import time
from pathlib import Path
from typing import Literal

import msgspec

from core.releases.model_store import ModelStore

STALE_SECONDS = 30.0
_LOG = logging.getLogger(__name__)


class StateUnreadable(ValueError):
    """A server's file can't be read, so it might serve any release."""


class Refused(msgspec.Struct, frozen=True):
    """A version that a server was asked to serve but does not, and why; unless that is `final`, it tries again."""

    version: int
    reason: str
    final: bool = True


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """One server: `release` (its title) and `digest` answer requests; `target` is the version that it rolls over to.

    `inference` is an address on its own host, and `management` a Unix socket in a folder that only its user can enter.
    `time` is when it said this, in unix seconds.
    """

    host: str
    pid: int
    inference: str
    management: str
    release: str
    digest: str
    state: Literal["serving", "rolling"] = "serving"
    target: int | None = None
    refused: Refused | None = None
    time: float = 0.0

    @property
    def here(self) -> bool:
        """Whether it runs on this host, where a process can be looked for."""
        return self.host == socket.gethostname()

    @property
    def gone(self) -> bool:
        """Whether its process has ended; on another host, whether it has been silent for long."""
        return not _runs(self.pid) if self.here else self._silent

    @property
    def alive(self) -> bool:
        """Whether it wrote its file lately and, on this host, its process still runs."""
        return not self._silent and not self.gone

    @property
    def _silent(self) -> bool:
        return time.time() - self.time >= STALE_SECONDS

    def versions_of(self, name: str) -> set[int]:
        """The versions of a name that it serves, or is about to."""
        of, _, version = self.release.partition("/")
        found = {int(version)} if of == name and version.isdigit() else set()
        return found if self.target is None else found | {self.target}


class StateFile:
    """The file of this process's server."""

    def __init__(self, store: ModelStore) -> None:
        self._folder = _folder(store)
        self._path = self._folder / f"{socket.gethostname()}-{os.getpid()}.json"
        self._reported = False

    def write(self, state: ServerState) -> None:
        """Write the state. If the store can't be written, that is logged once and has no other consequence."""
        partial = self._path.with_suffix(".partial")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(msgspec.structs.replace(state, time=time.time())))
            os.replace(partial, self._path)
        except OSError as error:
            if not self._reported:
                _LOG.warning("%s can't be written, so nobody sees there what this server serves: %s", self._path, error)
            self._reported = True

    def remove(self) -> None:
        """Remove the file, and those of servers that were killed on this host."""
        try:
            self._path.unlink(missing_ok=True)
            for path in self._folder.glob("*.json"):  # names are ambiguous: "web-2-7" may be of "web"
                found = _read_or_none(path)
                if found is not None and found.here and found.gone:
                    path.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("%s can't be removed: %s", self._path, error)


def live_servers(store: ModelStore) -> list[ServerState]:
    """The servers that follow this store's champion and are alive, by their file's name."""
    found = [_read_or_none(path) for path in _files(store)]
    return [state for state in found if state is not None and state.alive]


def present_servers(store: ModelStore) -> list[ServerState]:
    """Those that are not gone, even if they are silent; raises `StateUnreadable` rather than leave one out."""
    found = [_read(path) for path in _files(store)]
    return [state for state in found if state is not None and not state.gone]


def _folder(store: ModelStore) -> Path:
    return store.home / "servers"


def _files(store: ModelStore) -> list[Path]:
    return sorted(_folder(store).glob("*.json"))


def _read(path: Path) -> ServerState | None:
    """What the file says; None if its server has removed it meanwhile."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServerState)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise StateUnreadable(
            f"{path} can't be read ({error}), so nobody knows what that server serves: remove the file if it is gone"
        ) from error


def _read_or_none(path: Path) -> ServerState | None:
    try:
        return _read(path)
    except StateUnreadable:
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
