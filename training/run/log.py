"""log.jsonl: one JSON object a line, `step` ascending and never twice.

A run that was killed has logged steps that its checkpoint does not know; opening the log at the checkpoint's
step drops them, for the resumed run will write them again.
"""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.files.durable import publish_text
from core.files.json_text import json_text


def read_log(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a log, oldest first; none if there is no file; a last line cut short is dropped."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline was never finished
    return [json.loads(line) for line in lines]


class Log:
    """A log to append to, with everything after step `done` dropped; a context manager."""

    def __init__(self, path: Path, *, done: int = 0) -> None:
        kept = [entry for entry in read_log(path) if entry["step"] <= done]
        publish_text(path, "".join(json_text(entry) + "\n" for entry in kept))
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 (closed by __exit__)

    def write(self, entry: dict[str, Any]) -> None:
        """Append one object with a `step`."""
        self._file.write(json_text(entry) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
