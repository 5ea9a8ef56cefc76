"""Which releases are served just now, by what the servers that follow the store say of themselves.

Each publishes `model_store/<name>/servers/<host>-<pid>.json` and writes it anew every few seconds. Left out: servers
that were started with an archive of their own and do not follow the store; TorchServe unpacks one as it starts.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.store.errors import StoreError
from serving.model_store import ModelStore

_SILENT_S = 30  # a server of another host that said nothing for so long is gone


def served(store: ModelStore) -> dict[int, str]:
    """The versions that a living server serves or turns to, with where it is.

    Raises `StoreError` for a server's file that can't be read: it could be about any release.
    """
    found: dict[int, str] = {}
    for path in sorted((store.home / "servers").glob("*.json")):
        state = _state(path)
        if state is not None and _lives(state):
            for version in _versions(state, store.name):
                found[version] = f"{state['host']}, process {state['pid']}"
    return found


def _state(path: Path) -> dict[str, Any] | None:
    """What the file says; None if its server removed it meanwhile."""
    try:
        state = json.loads(path.read_bytes())
        return {"host": str(state["host"]), "pid": int(state["pid"]), "time": float(state["time"]), **state}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} can't be read ({error}), so nobody knows what that server serves: remove the file if it is gone"
        ) from error


def _lives(state: Mapping[str, Any]) -> bool:
    if state["host"] != socket.gethostname():
        return bool(time.time() - float(state["time"]) < _SILENT_S)
    try:
        os.kill(int(state["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _versions(state: Mapping[str, Any], name: str) -> set[int]:
    """The version that a server has as its default, and the one that it is about to have."""
    found = {state["target"]} if isinstance(state.get("target"), int) else set()
    of, _, version = str(state.get("release")).partition("/")
    return found | ({int(version)} if of == name and version.isdigit() else set())
