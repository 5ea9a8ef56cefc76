"""Retraining as its command: refused, killed and gone on with, promoted; what it says, and by which exit code."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.releases.manifest import to_json
from core.releases.model_store import CHAMPION, ModelStore
from retraining.child import heeded
from retraining.conduct import Retraining, Wishes
from retraining.errors import PlanError
from retraining.journal import STAGES, sweep, unfinished
from retraining.locks import FILE_NAME, alone
from retraining.plan import SUMMARY, Plan, differences, settle
from retraining.stages import stages_of
from serving.collection.catalogue.opening import open_catalogue
from tests.conftest import Chain

ROOT = Path(__file__).parents[2]
NAME = "chain"
# a ResNet-34 in two steps: its file is twice the champion's, which the gates refuse whatever it has learnt
TOO_LARGE = ("--mode=scratch", "--set", "encoder.architecture=resnet34", "--set", "steps=2", "--set", "batch_size=48")


class Site:
    """A copy of the chain's store and collection, its release the champion."""

    def __init__(self, folder: Path, chain: Chain) -> None:
        shutil.copytree(chain.store, folder / "store")
        shutil.copytree(chain.collection, folder / "collection")
        self.folder = folder
        self.store = ModelStore(folder / "store", NAME)
        self.store.set_alias(CHAMPION, 1)

    def command(self, *words: object) -> list[str]:
        where = ("--name", NAME, "--store", self.store.root, "--collection", self.folder / "collection")
        return [sys.executable, "-m", "retraining.command", *map(str, (*where, "--work", self.folder / "work", *words))]

    def run(self, *words: object) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(self.command(*words), cwd=ROOT, capture_output=True, text=True, check=False)
        print(done.stderr)
        return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}

    def kill_in(self, stage: str, *words: object) -> None:
        """Start it, and kill it with -9 as soon as a stage has begun."""
        path = self.folder / "work" / "0001" / STAGES / f"{stage}.attempts"
        with subprocess.Popen(
            self.command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            while not path.exists():
                assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def site(chain: Chain, tmp_path: Path) -> Site:
    return Site(tmp_path, chain)


def test_killed_in_two_stages_it_goes_on_and_is_refused_for_its_size(site: Site) -> None:
    given = (*TOO_LARGE, "--no-int8", "--full-speed")
    site.kill_in("pretrain", *given)
    assert site.store.alias(CHAMPION) == 1
    site.kill_in("export", *given)
    code, summary = site.run(*given)
    assert (code, summary["outcome"]) == (3, "refused")
    assert "file_bytes" in summary["reason"]
    assert summary["release"] == "chain/2"
    assert summary["stages"]["freeze"]["attempts"] == 1
    assert summary["stages"]["export"]["attempts"] == 2
    assert site.store.alias(CHAMPION) == 1
    manifest = site.store.release(2).manifest
    assert manifest.promotion["passed"] is False
    assert (
        manifest.lineage["collection"]["items"]
        == summary["items"]
        == open_catalogue(site.folder / "collection").items.count()
    )
    assert (site.store.release(2).folder / "report" / "comparison.html").is_file()
    assert not (site.folder / "work" / "0001" / "data").exists()
    assert [one.release for one in open_catalogue(site.folder / "collection").spaces.all()] == [
        site.store.release(1).space
    ]


def test_a_new_probe_is_promoted_and_needs_no_new_embeddings(site: Site) -> None:
    before = open_catalogue(site.folder / "collection").vectors.sequence(site.store.release(1).space)
    # forced, as an encoder that has hardly learnt gives no probe above chance
    code, summary = site.run("--mode", "probe", "--force", "--summary", site.folder / "summary.json")
    assert (code, summary["outcome"]) == (0, "promoted"), summary
    assert json.loads((site.folder / "summary.json").read_text()) == summary
    assert list(summary["stages"]) == ["freeze", "export", "promote"]
    assert site.store.aliases() == {"champion": 2, "previous": 1}
    assert site.store.release(2).space == site.store.release(1).space
    assert open_catalogue(site.folder / "collection").vectors.sequence(site.store.release(1).space) == before
    promoted = json.loads((site.store.home / "history.jsonl").read_text().splitlines()[-1])
    assert (promoted["reason"], promoted["to"]) == ("retraining 0001", 2)
    assert promoted["forced"] is not summary["promotion"]["passed"]
    # the champion was made before, of other splits: it has learnt from some of what is held out now
    assert "served_probe" not in [gate["name"] for gate in site.store.release(2).manifest.promotion["gates"]]


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(site: Site) -> None:
    code, summary = site.run("--dry-run", "--epochs", "2", "--set", "batch_size=48")
    assert code == 0
    costs = {cost["stage"]: cost for cost in summary["stages"]}
    assert list(costs) == ["freeze", "pretrain", "evaluate", "export", "embed", "promote"]
    assert costs["pretrain"]["basis"] == "steps taken now"
    assert costs["pretrain"]["seconds"] > 0
    assert costs["freeze"]["disk"] == open_catalogue(site.folder / "collection").items.count() * 16 * 16 * 3
    assert not (site.folder / "work").exists()
    assert site.store.versions() == [1]


def test_two_at_a_time_are_not_let(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retraining.locks._PATIENCE", 0.1)
    plan = Plan(NAME, str(site.store.root), str(site.folder / "collection"))
    with alone(plan), pytest.raises(PlanError, match="another retraining is at work"), alone(plan):
        pass
    other = Plan("other", str(site.store.root), str(site.folder / "collection"))
    with alone(plan), pytest.raises(PlanError, match=f"collection/{FILE_NAME}"), alone(other):
        pass


def test_fresh_gives_up_nothing_for_what_can_not_be_done(site: Site) -> None:
    begun = site.folder / "work" / "0001"
    begun.mkdir(parents=True)
    settle(Plan(NAME, str(site.store.root), str(site.folder / "collection")), 1).write(begun)
    code, summary = site.run("--fresh", "--images", "/nowhere")
    assert (code, summary["outcome"]) == (1, "failed")
    assert unfinished(site.folder / "work") == begun


def test_what_a_kill_at_the_very_end_left_is_removed(tmp_path: Path) -> None:
    for number, kept in (("0001", True), ("0002", False)):
        (tmp_path / number / "data").mkdir(parents=True)
        (tmp_path / number / SUMMARY).write_text(json.dumps({"outcome": "promoted", "kept": kept}))
    (tmp_path / "0003" / "data").mkdir(parents=True)
    sweep(tmp_path)
    assert [(tmp_path / number / "data").exists() for number in ("0001", "0002", "0003")] == [True, False, True]


def test_signals_that_are_to_be_ignored_are() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in heeded()
        assert signal.SIGTERM in heeded()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stopped_it_says_so_in_its_summary(site: Site) -> None:
    summary = site.folder / "summary.json"
    command = site.command(*TOO_LARGE, "--no-int8", "--full-speed", "--summary", summary)
    begun = site.folder / "work" / "0001" / STAGES / "pretrain.attempts"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert json.loads(out.splitlines()[-1]) == json.loads(summary.read_text())
    assert json.loads(summary.read_text())["outcome"] == "stopped"


def test_spaces_are_closed_though_some_release_can_not_be_read(site: Site) -> None:
    first = site.store.release(1)
    (site.store.home / "2").mkdir()
    older = msgspec.structs.replace(first.manifest, version=2, space="f" * 64)
    (site.store.home / "2" / "manifest.json").write_bytes(to_json(older))
    (site.store.home / "3").mkdir()
    (site.store.home / "3" / "manifest.json").write_text("{")
    catalogue = open_catalogue(site.folder / "collection")
    catalogue.spaces.open("f" * 64)
    catalogue.spaces.open(first.space)
    plan = settle(Plan(NAME, str(site.store.root), str(site.folder / "collection")), 1)
    Retraining(plan, site.folder, locks=(), wishes=Wishes(), costs=[])._close_old_spaces("promote")
    assert [one.release for one in catalogue.spaces.all()] == [first.space]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"collection": "", "images": ""}, "nothing to learn from"),
        ({"images": "/nowhere"}, "images is /nowhere, which does not exist"),
        ({"epochs": 2, "minutes": 3.0}, "both give the length"),
        ({"preset": "best"}, "preset is 'best'"),
        ({"name": "new", "mode": "probe"}, "has no champion"),
        ({"collection": "/nowhere"}, "holds no items"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_is_done(site: Site, changes: dict[str, Any], message: str) -> None:
    given = {"name": NAME, "store": str(site.store.root), "collection": str(site.folder / "collection")} | changes
    asked = Plan(**given)
    with pytest.raises(PlanError, match=message):
        settle(asked, asked.releases.alias(CHAMPION))


def test_a_plan_takes_size_and_recipe_from_the_champion(site: Site) -> None:
    asked = Plan(NAME, str(site.store.root), str(site.folder / "collection"), preset="")
    plan = settle(asked, 1)
    assert (plan.champion, plan.image_size, plan.mode) == (1, 16, "warm")
    assert differences(plan, settle(asked, 1)) == []
    (told,) = differences(plan, settle(Plan(**vars(asked) | {"seed": 3}), 1))
    assert told == "seed was 0, now 3"
    plan.write(site.folder)
    assert Plan.read(site.folder) == plan


def test_without_a_champion_it_begins_from_scratch_and_fills_the_collection(tmp_path: Path) -> None:
    asked = Plan("first", str(tmp_path), str(tmp_path / "collection"), str(tmp_path), preset="")
    plan = settle(asked, None)
    assert plan.mode == "scratch"
    assert [stage.name for stage in stages_of(plan)] == ["freeze", "pretrain", "evaluate", "export", "embed", "promote"]
