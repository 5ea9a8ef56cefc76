"""Which stages of a retraining are done, and what each took: one small file a stage, written when it has ended well.

A stage's own progress is kept by its command, which goes on from it.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.files.durable import publish_text
from core.files.json_text import json_text
from retraining.plan import PLAN, SUMMARY

STAGES = "stages"


@dataclass(frozen=True)
class Record:
    """A stage that ended well; `started` and `finished` are ISO times of the last attempt, `attempts` counts them."""

    stage: str
    seconds: float
    peak_bytes: int
    attempts: int
    started: str
    finished: str


class Journal:
    """The records of one retraining's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / STAGES

    def done(self, stage: str) -> Record | None:
        """The record of a stage that is finished."""
        path = self._path(stage)
        return Record(**json.loads(path.read_text())) if path.is_file() else None

    def attempt(self, stage: str) -> int:
        """Note that a stage begins; returns how often it has begun so far."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{stage}.attempts"
        count = 1 + (int(path.read_text()) if path.is_file() else 0)
        publish_text(path, str(count))
        return count

    def finish(self, record: Record) -> None:
        """Note that a stage is finished."""
        publish_text(self._path(record.stage), json_text(asdict(record), indent=1))

    def records(self, stages: Sequence[str]) -> list[Record]:
        """Those of `stages` that are finished, in this order."""
        return [record for stage in stages if (record := self.done(stage)) is not None]

    def _path(self, stage: str) -> Path:
        return self._folder / f"{stage}.json"


def unfinished(work: Path) -> Path | None:
    """The folder of the retraining that has begun and has no summary yet."""
    begun = [folder for folder in _numbered(work) if (folder / PLAN).is_file()]
    return begun[-1] if begun and not (begun[-1] / SUMMARY).is_file() else None


def begin(work: Path) -> Path:
    """A new folder, numbered on."""
    folder = work / f"{1 + max((int(one.name) for one in _numbered(work)), default=0):04d}"
    folder.mkdir(parents=True)
    return folder


def abandon(folder: Path) -> None:
    """Give up an unfinished retraining: its data and weights go."""
    publish_text(folder / SUMMARY, json_text({"outcome": "abandoned", "kept": False}))
    remove_bulk(folder)


def remove_bulk(folder: Path) -> None:
    """Remove what only the retraining itself needed: the frozen pixels, optimiser state, embeddings."""
    for name in ("data", "pretrain", "evaluation"):
        shutil.rmtree(folder / name, ignore_errors=True)


def sweep(work: Path) -> None:
    """Finish the removal of what a retraining that was killed at its very end left.

    A summary of an older version does not say whether it was to be kept: it is.
    """
    for folder in _numbered(work):
        if (folder / SUMMARY).is_file() and not json.loads((folder / SUMMARY).read_text()).get("kept", True):
            remove_bulk(folder)


def last_summaries(work: Path) -> list[dict[str, Any]]:
    """The summaries of retrainings that ended, newest first."""
    files = [folder / SUMMARY for folder in reversed(_numbered(work)) if (folder / SUMMARY).is_file()]
    return [json.loads(file.read_text()) for file in files]


def _numbered(work: Path) -> list[Path]:
    folders = work.iterdir() if work.is_dir() else iter(())
    return sorted(folder for folder in folders if folder.is_dir() and folder.name.isdigit())
