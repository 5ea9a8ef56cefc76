"""Retrainings that are killed with SIGKILL in every stage, and run again: do they end as one that was left alone?

    python -m benchmarks.durability.retrain_kills --images cifar10-images.zip [--lives 5]

One retraining runs to its end undisturbed. Then, from copies of the same store and collection, `--lives` others are
killed once in each of their stages, at a random moment of it, and started again each time, beside a server that
follows the champion and is asked all the while. It counts kills by stage; moments at which the store had no champion
that verifies; questions that the server left unanswered; lives that ended without a promotion, or with a release whose
weights, graph or probe have other bytes. Prints a last line of JSON, and fails if any but the first is not 0.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.tools.child import ROOT, SIMCLR
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.jpegs import read_jpegs
from core.command_line.command import main
from core.releases.manifest import Release
from core.releases.model_store import CHAMPION, ModelStore
from retraining.journal import STAGES, unfinished
from serving.client.client import Client, ServerError
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings

NAME = "kills"
_STAGES = ("freeze", "pretrain", "evaluate", "export", "embed", "promote")
_COMPARED = ("weights.safetensors", "encoder.onnx", "medians.npy", "probe.npy")
_RECIPE = ("--set", "encoder.architecture=resnet18", "--set", "head.hidden=64", "--no-int8", "--force", "--full-speed")
_POLL_SECONDS = 0.01


class Site:
    """A store and a collection in a folder, and how to retrain there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ModelStore(folder / "store", NAME)

    @property
    def work(self) -> Path:
        """Where retrainings lie."""
        return self.folder / "retrain"

    def start(self, *words: object) -> "subprocess.Popen[bytes]":
        """`simclr retrain`, begun or gone on with."""
        command = ["retrain", "--name", NAME, "--store", self.store.root, "--work", self.work]
        command += ["--collection", self.folder / "collection", "--epochs", "2", *_RECIPE, *words]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*SIMCLR, *map(str, command)], cwd=ROOT, stdout=log, stderr=log)

    def finish(self, *words: object) -> int:
        """Run it to its end; the exit code."""
        return self.start(*words).wait()

    def champion(self) -> Release:
        """The champion, verified; raises `ManifestError`."""
        release = self.store.release(CHAMPION)
        release.verify()
        return release


class Watch(threading.Thread):
    """Asks the server, and looks at the alias, without pause."""

    def __init__(self, site: Site, url: str) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._url = url
        self._ended = threading.Event()
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Until `stop`."""
        with Client(self._url, patience=0) as client:  # every failure counts
            while not self._ended.wait(0.05):
                self.counts["asked"] += 1
                try:
                    client.describe()
                except ServerError as error:
                    self.counts["unanswered"] += 1
                    print(f"unanswered: {error}", file=sys.stderr)
                if self._site.store.alias(CHAMPION) is None:
                    self.counts["without_champion"] += 1

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self.join()


def killed_once_a_stage(site: Site, durations: dict[str, float], chance: random.Random) -> Counter[str]:
    """One retraining to its end, killed in every stage; which kills there were."""
    kills: Counter[str] = Counter()
    for stage in _STAGES:
        process = site.start()
        if _begins(site, stage, process):
            time.sleep(chance.random() * durations[stage])
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                kills[stage] += 1
        process.wait()
        site.champion()
    code = site.finish()
    if code != 0 and site.store.alias(CHAMPION) == 1:  # the last kill may have come after the end: then it is done
        raise RuntimeError(f"a retraining ended with code {code}:\n{(site.folder / 'log').read_text()[-3000:]}")
    return kills


def _begins(site: Site, stage: str, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until a stage begins (again); False if the retraining ended before."""
    before = _attempts(site, stage)
    while process.poll() is None:
        if _attempts(site, stage) > before:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _attempts(site: Site, stage: str) -> int:
    folder = unfinished(site.work)
    path = folder / STAGES / f"{stage}.attempts" if folder is not None else None
    return int(path.read_text() or 0) if path is not None and path.is_file() else 0


def differing(one: Release, other: Release) -> list[str]:
    """Which of the files that a seed decides have other bytes."""
    files, others = one.manifest.files, other.manifest.files
    return [name for name in _COMPARED if files.get(name) != others.get(name)]


def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All lives; the figures."""
    first = Site(work / "first")
    images = _images(options, first.folder / "images")
    if first.finish("--images", images) != 0:
        raise RuntimeError(f"no first release: {(first.folder / 'log').read_text()[-3000:]}")
    alone = _copy(first, work / "alone")
    if alone.finish() != 0:
        raise RuntimeError(f"the retraining left alone failed: {(alone.folder / 'log').read_text()[-3000:]}")
    records = sorted((alone.work).rglob(f"{STAGES}/*.json"))
    durations = {path.stem: json.loads(path.read_text())["seconds"] for path in records}
    chance = random.Random(options.seed)
    kills: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    different: list[str] = []
    for life in range(options.lives):
        site = _copy(first, work / f"life-{life}")
        settings = Settings(store=site.store.root, name=NAME, collection=site.folder / "collection", port=0, workers=1)
        with Server(settings) as server:
            watch = Watch(site, server.url)
            watch.start()
            kills += killed_once_a_stage(site, durations, chance)
            watch.stop()
            counts += watch.counts
        different += differing(alone.champion(), site.champion())
        counts["not_promoted"] += site.store.alias(CHAMPION) == 1
        print(f"life {life + 1}: {dict(kills)}, {dict(counts)}, different {different}", file=sys.stderr)
        shutil.rmtree(site.folder)
    return {
        "lives": options.lives,
        "kills": sum(kills.values()),
        "by_stage": dict(kills),
        "asked": counts["asked"],
        "unanswered": counts["unanswered"],
        "without_champion": counts["without_champion"],
        "not_promoted": counts["not_promoted"],
        "different_files": len(different),
    }


def _images(options: argparse.Namespace, folder: Path) -> Path:
    for number, data in enumerate(read_jpegs(options.images, options.items)):
        path = folder / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def _copy(site: Site, folder: Path) -> Site:
    """The same store and collection elsewhere."""
    for name in ("store", "collection"):
        shutil.copytree(site.folder / name, folder / name)
    return Site(folder)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="folder or zip of JPEG files")
    parser.add_argument("--lives", type=int, default=5, help="retrainings, each killed in 6 stages")
    parser.add_argument("--items", type=int, default=600, help="of the collection (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as work:
        figures = run(options, Path(work))
    for name, value in figures.items():
        print(f"{name:<20}{value}")
    return figures


_FAILURES = ("unanswered", "without_champion", "not_promoted", "different_files")
COMMAND = benchmark("benchmarks.durability.retrain_kills", __doc__, _add_arguments, _measure, must_be_zero=_FAILURES)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
