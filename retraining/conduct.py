"""One retraining, from its first stage to the servers that follow: each stage once, whatever was killed before."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.files.durable import publish_text
from core.files.json_text import json_text
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import ModelStore
from retraining.child import run_stage
from retraining.commands import Commands, StageCommand
from retraining.costs import Cost, duration
from retraining.errors import NotBetter, NotFollowed, NotPromoted, StageFailed
from retraining.journal import Journal, Record, remove_bulk
from retraining.plan import SUMMARY, Plan
from retraining.stages import stages_of
from retraining.switching import champion_is, wait_until_followed
from serving.collection.catalogue.opening import open_catalogue

logger = logging.getLogger(__name__)

FOLLOW_SECONDS = 900.0  # a server that starts on a slow disk, and catches up with what was written meanwhile


@dataclass(frozen=True)
class Wishes:
    """How to carry it out.

    `force` promotes a release that its gates refuse, `polite` makes way for other processes, `keep` keeps what lies
    between at the end. `fresh` gives up an unfinished retraining, `if_needed` begins none that is not needed.
    """

    force: bool = False
    polite: bool = True
    keep: bool = False
    fresh: bool = False
    if_needed: bool = False


class Retraining:
    """A retraining in its folder; `locks` are the file descriptors that its stages inherit."""

    def __init__(self, plan: Plan, folder: Path, *, locks: Sequence[int], wishes: Wishes, costs: list[Cost]) -> None:
        self.plan = plan
        self._folder = folder
        self._locks = locks
        self._wishes = wishes
        self._expected = {cost.stage: cost.seconds for cost in costs}
        self._journal = Journal(folder)
        self._commands = Commands(plan, folder)
        self._stages = stages_of(plan)

    def run(self) -> dict[str, Any]:
        """Do what is left of it; returns the summary.

        Raises `StageFailed`, `Interrupted`, and `NotPromoted` with the summary.
        """
        try:
            self._run_stages()
        except NotPromoted as error:
            error.summary = self._finish("refused", reason=str(error))
            raise
        return self._finish("promoted")

    def _run_stages(self) -> None:
        for stage in self._stages:
            if stage.name == "embed":
                self._judge()  # before it costs anything
            if self._journal.done(stage.name) is None:
                self._heading(stage.name, stage.what)
                act = self._promote if stage.name == "promote" else self._run_command
                self._recorded(stage.name, act)

    def made(self) -> Release | None:
        """The release that it published, if it has come to that."""
        if self._journal.done("export") is None:
            return None
        return Release(self._commands.release["release"])

    def _recorded(self, name: str, act: Callable[[str], int]) -> None:
        attempts, started, start = self._journal.attempt(name), _now(), time.monotonic()
        peak = act(name)
        self._journal.finish(Record(name, time.monotonic() - start, peak, attempts, started, _now()))

    def _run_command(self, name: str) -> int:
        """Run a stage's command; returns its peak memory in bytes."""
        return self._command(name, self._commands.of(name))

    def _command(self, name: str, command: StageCommand, *, urgent: bool = False) -> int:
        logger.info("$ %s", command)
        ended = run_stage(command.words, polite=self._wishes.polite and not urgent, locks=self._locks)
        if ended.code != 0:
            killed = " (killed)" if ended.code < 0 else ""
            raise StageFailed(
                f"the stage {name!r} ended with code {ended.code}{killed}; the same command goes on with it"
            )
        return ended.peak_bytes

    def _judge(self) -> None:
        """Stop here if the gates refused the release and nobody forces it."""
        verdict = self._commands.release["promotion"]
        if not verdict["passed"] and not self._wishes.force:
            raise NotBetter(
                f"{self._made().manifest.title} is not better than {self.plan.name}/{self.plan.champion}: "
                f"{'; '.join(verdict['failed'])}. Its report: {self._made().folder / 'report' / 'comparison.html'}"
            )

    def _promote(self, name: str) -> int:
        """Change the alias and wait for the servers; the alias back if one refuses."""
        self._judge()
        plan, version = self.plan, self._made().manifest.version
        reason = f"retraining {self._folder.name}"
        peak = 0
        if not champion_is(plan.releases, version):
            if catch_up := self._commands.catch_up():
                peak = self._command(name, catch_up)
            forced = not self._commands.release["promotion"]["passed"]
            self._command(name, self._commands.promote(version, reason=reason, force=forced), urgent=True)
        try:
            wait_until_followed(plan.releases, version, seconds=FOLLOW_SECONDS, tell=logger.info)
        except NotFollowed as error:
            if plan.champion:
                self._command(name, self._commands.rollback(version, reason=f"{reason}: {error}"), urgent=True)
            raise
        self._close_old_spaces(name)
        return peak

    def _close_old_spaces(self, name: str) -> None:
        """Forget the vectors of this name's releases that neither serve nor are gone back to."""
        store, collection = self.plan.releases, self.plan.collection
        if not collection:
            return
        kept = {_space(store, version) for version in store.aliases().values()}
        if None in kept:
            logger.info("an alias names a release that can't be read: no embedding space is closed")
            return
        ours = {_space(store, version) for version in store.versions()}
        catalogue = open_catalogue(collection)
        there = {one.release for one in catalogue.spaces.all()}
        there |= {one.release for one in catalogue.stats().releases}  # half closed ones are not among the spaces
        for space in sorted(there & (ours - kept)):
            self._command(name, self._commands.close_space(space))

    def _made(self) -> Release:
        made = self.made()
        assert made is not None, "the export is done"
        return made

    def _heading(self, name: str, what: str) -> None:
        names = [stage.name for stage in self._stages]
        place = names.index(name)
        left = [self._expected.get(one) for one in names[place:]]
        whole = sum(one for one in left if one is not None) if None not in left else None
        eta = f"about {duration(self._expected.get(name))}; to the end {duration(whole)}"
        logger.info("\n[%d/%d] %s: %s (%s)", place + 1, len(names), name, what, eta)

    def _finish(self, outcome: str, *, reason: str = "") -> dict[str, Any]:
        summary = {"outcome": outcome, "reason": reason, "kept": self._wishes.keep, **self.facts()}
        publish_text(self._folder / SUMMARY, json_text(summary, indent=1))
        if not self._wishes.keep:
            remove_bulk(self._folder)
        return summary

    def facts(self) -> dict[str, Any]:
        """What is known of it so far: release, verdict, stages with their time and memory."""
        records = self._journal.records([stage.name for stage in self._stages])
        made = self.made()
        whole = sum(record.seconds for record in records)
        pretraining = sum(record.seconds for record in records if record.stage == "pretrain")
        return {
            "release": made.manifest.title if made is not None else None,
            "champion": f"{self.plan.name}/{self.plan.champion}" if self.plan.champion else None,
            "promotion": self._commands.release["promotion"] if made is not None else None,
            "metrics": made.manifest.metrics if made is not None else None,
            "items": self._items(made),
            "folder": str(self._folder),
            "plan": asdict(self.plan),
            "seconds": round(whole, 1),
            "share_outside_pretraining": round(1 - pretraining / whole, 4) if whole else None,
            "peak_bytes": max((record.peak_bytes for record in records), default=0),
            "stages": {record.stage: {**asdict(record), "seconds": round(record.seconds, 2)} for record in records},
        }

    def _items(self, made: Release | None) -> int:
        counts = made.manifest.lineage["data"]["counts"] if made is not None else {}
        return sum(counts.values())


def _space(store: ModelStore, version: int) -> str | None:
    """The embedding space of a version; None if it can't be read."""
    try:
        return store.release(version).space
    except ManifestError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
