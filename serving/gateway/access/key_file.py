"""The key file: where it is, how it is read, and how it is changed by one process at a time."""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from core.files.durable import publish_file
from core.files.locks import locked
from serving.gateway.access.keys import KeyList

VARIABLE = "SIMCLR_KEYS"
_WAIT_SECONDS = 10.0
_OWNER_ALONE = 0o600


class KeyFileError(ValueError):
    """A key file that can't be used; the message names it."""


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """$SIMCLR_KEYS, else simclr/keys.json in the user's configuration folder."""
    if named := environment.get(VARIABLE):
        return Path(named)
    folder = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder, "simclr", "keys.json")


def read(path: Path) -> KeyList | None:
    """The keys of a file; None if it does not exist. Raises `KeyFileError`."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"the key file {path} can't be read: {error.strerror}") from error
    with open(handle, "rb") as file:
        return parse(file.read(), path, os.fstat(handle).st_mode)


def parse(content: bytes, path: Path, mode: int) -> KeyList:
    """The keys in the content of a file; whoever may write it could let anyone in, so that is its owner alone."""
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError(f"others than its owner may write the key file {path}: chmod 600 {path}")
    try:
        return msgspec.json.decode(content, type=KeyList)
    except (msgspec.DecodeError, ValueError) as error:
        raise KeyFileError(f"the key file {path} can't be used: {error}") from error


def change(path: Path, changed: Callable[[KeyList], KeyList]) -> KeyList:
    """Put other keys into the file, whole or not at all, while no other process changes it; returns them.

    A file that does not exist counts as one without keys. Raises `KeyFileError`, and what `changed` raises.
    """
    path = path.resolve()  # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(path.with_name(f".{path.name}.lock"), wait=_WAIT_SECONDS) as handle:
        if handle is None:
            raise KeyFileError(f"another process has been changing {path} for {_WAIT_SECONDS:.0f} seconds; try again")
        keys = changed(read(path) or KeyList())
        content = msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n"
        publish_file(path, lambda partial: _fill(partial, content, owner_of=path))
    return keys


def _fill(partial: Path, content: bytes, *, owner_of: Path) -> None:
    """Write a file for its owner, who is that of the file it replaces: root may add a key for the server's user."""
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ALONE), "wb") as file:
        os.fchmod(file.fileno(), _OWNER_ALONE)
        if os.geteuid() == 0 and owner_of.exists():
            there = owner_of.stat()
            os.fchown(file.fileno(), there.st_uid, there.st_gid)
        file.write(content)
