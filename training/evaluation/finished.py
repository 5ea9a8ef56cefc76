"""What of a long piece of work is finished: a result a task, kept with what was asked, and reused.

A task is done once for a request. One that was killed is done again from its beginning; finished ones are not.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files.durable import publish_text, sha256_of
from core.files.json_text import json_text

logger = logging.getLogger(__name__)

VERSION = 2  # of what tasks compute: raise it when the same request would give another result


@dataclass(frozen=True)
class Finished:
    """The results in `folder`, one JSON file a task, made when the first one is kept."""

    folder: Path

    def once(self, task: str, request: dict[str, Any], work: Callable[[], Any], *, files: Sequence[Path] = ()) -> Any:
        """The result of `task` for `request` (both JSON): the kept one, else that of `work`, which is kept.

        `files` are what `work` writes besides; a kept result counts only while they are as it left them.
        """
        path = self.folder / f"{task.replace(', ', '-').replace(' ', '-')}.json"
        asked = json.loads(json_text({"version": VERSION, **request}))
        record = _read(path)
        if record is not None and record["request"] == asked and record["files"] == _digests(files):
            return record["result"]
        logger.info("%s", task)
        result = work()
        text = json_text({"request": asked, "files": _digests(files), "result": result})
        self.folder.mkdir(parents=True, exist_ok=True)
        publish_text(path, text)
        return json.loads(text)["result"]  # as a later run will read it


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and {"request", "files", "result"} <= set(record) else None


def _digests(files: Sequence[Path]) -> dict[str, str | None]:
    return {file.name: sha256_of(file) if file.is_file() else None for file in files}
