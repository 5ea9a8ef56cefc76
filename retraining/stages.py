"""The stages of a retraining as commands, in order; what each needs is left behind by those before it.

Every command can be run again at any time and goes on, or does nothing, where it is finished: that is what makes a
killed retraining resumable.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retraining.plan import Plan

ALL_STAGES = ("ingest", "freeze", "pretrain", "evaluate", "export", "embed", "promote")
RELEASE = "release.json"


@dataclass(frozen=True)
class Stage:
    """A stage: its name, and what it does in a few words."""

    name: str
    what: str


_WHAT = {
    "ingest": "the folder's images into the collection",
    "freeze": "the collection as it is now, as pixels",
    "pretrain": "SimCLR",
    "evaluate": "probe and kNN on the held-out images",
    "export": "release, and its comparison with the champion",
    "embed": "every item by the new release, and its index",
    "promote": "the new release becomes the champion; servers follow",
}


def stages_of(plan: Plan) -> list[Stage]:
    """The stages that this plan has."""
    wanted = set(ALL_STAGES)
    if not (plan.images and plan.collection and plan.champion):
        wanted.discard("ingest")
    if plan.mode == "probe":
        wanted -= {"pretrain", "evaluate", "embed"}
    if not plan.collection:
        wanted.discard("embed")
    return [Stage(name, _WHAT[name]) for name in ALL_STAGES if name in wanted]


class Commands:
    """The command of each stage of `plan`, whose retraining lies in `folder`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder

    def of(self, stage: str) -> list[str]:
        """The words of a stage's command; "promote" is for `retraining.switching`."""
        return {
            "ingest": self._ingest,
            "freeze": self._freeze,
            "pretrain": self._pretrain,
            "evaluate": self._evaluate,
            "export": self._export,
            "embed": self._embed,
        }[stage]()

    def catch_up(self) -> list[str] | None:
        """Embed what was written since "embed", which servers would have to before their first search."""
        if not self._plan.from_collection:
            return None
        return self._reembed()

    def promote(self, version: int, *, reason: str, force: bool) -> list[str]:
        """Make a release the champion."""
        words = _python("export.store.command", "promote", version, *self._store(), "--reason", reason)
        return [*words, "--force"] if force else words

    def rollback(self, version: int, *, reason: str) -> list[str]:
        """Make the release before `version` the champion again, if that is the champion."""
        return _python("export.store.command", "rollback", *self._store(), "--if-champion", version, "--reason", reason)

    def close_space(self, space: str) -> list[str]:
        """Forget the vectors of a space that no release to serve or to go back to has."""
        return _python(
            "serving.collection.commands.spaces", "--collection", self._plan.collection, "close", space, "--yes"
        )

    @property
    def release(self) -> dict[str, Any]:
        """What the export said: "release", "archive", "promotion" {"passed", "failed"}."""
        found: dict[str, Any] = json.loads((self._folder / RELEASE).read_text())
        return found

    def _ingest(self) -> list[str]:
        plan = self._plan
        where = ("--release", plan.champion_folder, "--collection", plan.collection)
        return _python("serving.jobs.ingest.command", *where, *(["--labels"] if plan.labels else []), plan.images)

    def _freeze(self) -> list[str]:
        plan = self._plan
        source = ("--collection", plan.collection) if plan.from_collection else ("--images", plan.images)
        size = ("--image-size", plan.image_size) if plan.image_size else ()
        return _python("retraining.prepare_command", *source, "--out", self._data, "--seed", plan.seed, *size)

    def _pretrain(self) -> list[str]:
        plan = self._plan
        length: tuple[object, ...] = ("--epochs", plan.epochs) if plan.epochs else ()
        length = ("--minutes", plan.minutes) if plan.minutes else length
        start = ("--start-from", plan.champion_folder) if plan.mode == "warm" else ()
        settings = [word for setting in plan.settings for word in ("--set", setting)]
        launcher = shlex.split(plan.launcher) or [sys.executable]
        words = ("--data", self._data, "--out", self._run, "--preset", plan.preset, "--seed", plan.seed)
        return [*launcher, "-m", "training.run", *map(str, (*words, *length, *start, *settings))]

    def _evaluate(self) -> list[str]:
        where = ("--data", self._data, "--checkpoint", self._checkpoint, "--out", self._evaluation)
        # the champion is what it is compared with
        return _python("training.evaluation.command", *where, "--no-baselines")

    def _export(self) -> list[str]:
        plan = self._plan
        champion = ("--champion", plan.champion_folder) if plan.champion else ("--no-champion",)
        target = (*self._store(), "--data", self._data, "--summary", self._folder / RELEASE)
        if plan.mode == "probe":
            return _python("export.publishing.command", "--probe-only", "--parent", plan.champion_folder, *target)
        made = ("--checkpoint", self._checkpoint, "--evaluation", self._evaluation)
        parent = ("--parent", plan.champion_folder) if plan.mode == "warm" else ()
        forms = () if plan.int8 else ("--no-int8",)
        return _python("export.publishing.command", *target, *made, *champion, *parent, *forms)

    def _embed(self) -> list[str]:
        if self._plan.from_collection:
            return self._reembed("--index")
        return _python("serving.jobs.ingest.command", *self._target(), "--data", self._data)

    def _reembed(self, *words: str) -> list[str]:
        return _python("serving.jobs.reembed.command", *self._target(), *words)

    def _target(self) -> tuple[object, ...]:
        return ("--release", self.release["release"], "--collection", self._plan.collection)

    def _store(self) -> tuple[object, ...]:
        return ("--name", self._plan.name, "--store", self._plan.store)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _run(self) -> Path:
        return self._folder / "pretrain"

    @property
    def _checkpoint(self) -> Path:
        return self._run / "checkpoint.safetensors"

    @property
    def _evaluation(self) -> Path:
        return self._folder / "evaluation"


def _python(module: str, *words: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, words)]


def shown(command: Sequence[str]) -> str:
    """A command as it would be typed."""
    words = ["python" if word == sys.executable else word for word in command]
    return shlex.join(words)
