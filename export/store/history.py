"""What was done to the aliases and releases of a name: one line of JSON for each act, in `history.jsonl`.

A line is written after the act that it records. A process that is killed between the two leaves the act without its
line; `export.store.promotion` adds one when it finds that.
"""

import getpass
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.files.durable import sync
from core.files.json_text import json_text

FILE_NAME = "history.jsonl"


def append(home: Path, action: str, **about: Any) -> dict[str, Any]:
    """Add a line, on disk when this returns; `about` has `before` and `after` (`from` and `to` in the line), and more.

    If a killed process left the last line half-written, it is ended first, so that only that line is unreadable.
    """
    before, after = about.pop("before", None), about.pop("after", None)
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "host": socket.gethostname(), "user": _user()}
    line |= {"action": action, "from": before, "to": after, **about}
    path = home / FILE_NAME
    with path.open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        broken = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * broken + json_text(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync(home)
    return line


def read(home: Path) -> list[dict[str, Any]]:
    """The lines, oldest first, without those that can't be read."""
    try:
        text = (home / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for written in text.splitlines() if (line := _parsed(written)) is not None]


def deleted(home: Path) -> set[int]:
    """The versions that were deleted: their numbers are not used again."""
    return {line["from"] for line in read(home) if line["action"] == "delete" and isinstance(line["from"], int)}


def _parsed(written: str) -> dict[str, Any] | None:
    try:
        line = json.loads(written)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"action", "from", "to"} <= line.keys() else None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user number without a name, as in a container
        return None
