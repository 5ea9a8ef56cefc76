"""The commands of a retraining's stages: started as modules, and shown as a person would type them.

Every one can be run again at any time and goes on, or does nothing, where it is finished: that is what makes a killed
retraining resumable.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retraining.plan import Plan

RELEASE = "release.json"


@dataclass(frozen=True)
class StageCommand:
    """`simclr NAME ARGUMENTS`, which is started as `python -m MODULE`, or by a `launcher` such as torchrun."""

    name: str
    module: str
    arguments: tuple[str, ...]
    launcher: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """What starts it."""
        return [*(self.launcher or (sys.executable,)), "-m", self.module, *self.arguments]

    def __str__(self) -> str:
        return shlex.join(self.words if self.launcher else ["simclr", self.name, *self.arguments])


class Commands:
    """The command of each stage of `plan`, whose retraining lies in `folder`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._folder = folder

    def of(self, stage: str) -> StageCommand:
        """The command of a stage; "promote" has several, which `retraining.conduct` runs one by one."""
        return {
            "ingest": self._ingest,
            "freeze": self._freeze,
            "pretrain": self._pretrain,
            "evaluate": self._evaluate,
            "export": self._export,
            "embed": self._embed,
        }[stage]()

    def catch_up(self) -> StageCommand | None:
        """Embed what was written since "embed", which servers would have to before their first search."""
        return self._reembed() if self._plan.from_collection else None

    def promote(self, version: int, *, reason: str, force: bool) -> StageCommand:
        """Make a release the champion."""
        return self._releases("promote", version, "--reason", reason, *(["--force"] if force else []))

    def rollback(self, version: int, *, reason: str) -> StageCommand:
        """Make the release before `version` the champion again, if `version` is the champion."""
        return self._releases("rollback", "--if-champion", version, "--reason", reason)

    def close_space(self, space: str) -> StageCommand:
        """Forget the vectors of a space that no release to serve or to go back to has."""
        where = ("--collection", self._plan.collection)
        return _command("spaces", "serving.collection.commands.spaces", *where, "close", space, "--yes")

    @property
    def release(self) -> dict[str, Any]:
        """What the export said: "release", "archive", "promotion" {"passed", "failed"}."""
        found: dict[str, Any] = json.loads((self._folder / RELEASE).read_text())
        return found

    def _ingest(self) -> StageCommand:
        plan = self._plan
        labels = ["--labels"] if plan.labels else []
        where = ("--release", plan.champion_folder, "--collection", plan.collection)
        return _command("ingest", "serving.jobs.ingest.command", *where, *labels, plan.images)

    def _freeze(self) -> StageCommand:
        plan = self._plan
        source = ("--collection", plan.collection) if plan.from_collection else ("--images", plan.images)
        size = ("--image-size", plan.image_size) if plan.image_size else ()
        words = (*source, "--out", self._data, "--seed", plan.seed, *size)
        return _command("prepare", "retraining.prepare_command", *words)

    def _pretrain(self) -> StageCommand:
        plan = self._plan
        length: tuple[object, ...] = ("--epochs", plan.epochs) if plan.epochs else ()
        length = ("--minutes", plan.minutes) if plan.minutes else length
        start = ("--start-from", plan.champion_folder) if plan.mode == "warm" else ()
        settings = [word for setting in plan.settings for word in ("--set", setting)]
        words = ("--data", self._data, "--out", self._run, "--preset", plan.preset, "--seed", plan.seed)
        arguments = tuple(map(str, (*words, *length, *start, *settings)))
        return StageCommand("pretrain", "training.run", arguments, tuple(shlex.split(plan.launcher)))

    def _evaluate(self) -> StageCommand:
        where = ("--data", self._data, "--checkpoint", self._checkpoint, "--out", self._evaluation)
        # the champion is what it is compared with
        return _command("evaluate", "training.evaluation.command", *where, "--no-baselines")

    def _export(self) -> StageCommand:
        plan = self._plan
        target = ("--name", plan.name, "--store", plan.store, "--data", self._data, "--summary", self._folder / RELEASE)
        if plan.mode == "probe":
            words: tuple[object, ...] = ("--probe-only", "--parent", plan.champion_folder)
            return _command("export", "export.publishing.command", *words, *target)
        made = ("--checkpoint", self._checkpoint, "--evaluation", self._evaluation)
        champion = ("--champion", plan.champion_folder) if plan.champion else ("--no-champion",)
        parent = ("--parent", plan.champion_folder) if plan.mode == "warm" else ()
        formats = () if plan.int8 else ("--no-int8",)
        return _command("export", "export.publishing.command", *target, *made, *champion, *parent, *formats)

    def _embed(self) -> StageCommand:
        if self._plan.from_collection:
            return self._reembed("--index")
        return _command("ingest", "serving.jobs.ingest.command", *self._target(), "--data", self._data)

    def _reembed(self, *words: str) -> StageCommand:
        return _command("reembed", "serving.jobs.reembed.command", *self._target(), *words)

    def _releases(self, action: str, *words: object) -> StageCommand:
        store = ("--name", self._plan.name, "--store", self._plan.store)
        return _command("releases", "export.store.command", action, *words, *store)

    def _target(self) -> tuple[object, ...]:
        return ("--release", self.release["release"], "--collection", self._plan.collection)

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


def _command(name: str, module: str, *words: object) -> StageCommand:
    return StageCommand(name, module, tuple(map(str, words)))
