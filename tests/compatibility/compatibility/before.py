"""What an earlier commit leaves behind: its own commands, run in its own checkout on real images, some of them killed.

The checkout comes out of this repository's own history, so a shallow clone has none and the tests are skipped.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMIT = "9fac66ff77bd46bbff3749f8f806c83f7c711726"  # before the rooms of today
NAME = "chain"
SIZE = 16

# Several commands in one process, which imports torch once: ["module", "word", ...], or ["-c", "source"].
_DRIVER = """
import json, runpy, sys
for module, *words in json.loads(sys.argv[1]):
    sys.argv = [module, *words]
    try:
        exec(words[0], {}) if module == "-c" else runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""

# Metadata in the collection, and an item less.
_EDITS = """
from pathlib import Path
import numpy as np
from serving.collection.catalogue import Catalogue
from serving.collection.items import Item
from serving.manifest import Release
catalogue, space = Catalogue(Path({collection!r})), Release(Path({release!r})).space
page = catalogue.list_items(limit=11).items
catalogue.delete([page[10].id])
vectors = catalogue.vectors_of([item.id for item in page[:10]], space)
items = [Item(item.id, item.source, item.label, {{"year": 2020 + n, "place": {{"town": "Kiel"}}}})
         for n, item in enumerate(page[:10])]
catalogue.upsert(items, np.stack([vectors[item.id] for item in items]), space)
"""

# 20 steps of some tenths of a second
PRETRAIN = (
    *("--preset", "cifar10", "--architecture", "resnet18", "--stem", "small", "--epochs", "5", "--batch-size", "40"),
    *("--precision", "fp32", "--set", "head.hidden=64", "--log-steps", "1", "--device", "cpu"),
)
BULK = ("--shard-size", "4", "--batch", "4", "--processes", "1", "--form", "onnx")
RETRAIN = ("--name", NAME, "--no-int8", "--full-speed", "--force", "--set", "steps=2", "--set", "batch_size=40")


@dataclass(frozen=True)
class Before:
    """The folders that the earlier commands wrote, all below `root`."""

    root: Path

    @property
    def images(self) -> Path:
        """The real images, a folder a label."""
        return self.root / "images"

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.root / "data"

    @property
    def whole(self) -> Path:
        """A pretraining that nothing disturbed."""
        return self.root / "whole"

    @property
    def half(self) -> Path:
        """The same pretraining, killed on its way."""
        return self.root / "half"

    @property
    def evaluation(self) -> Path:
        """The evaluation of the whole one."""
        return self.root / "evaluation"

    @property
    def store(self) -> Path:
        """The model store: release 1 with its archive, the champion."""
        return self.root / "store"

    @property
    def collection(self) -> Path:
        """The images of the data folder but one, ten of them with metadata; a snapshot is kept in it."""
        return self.root / "collection"

    @property
    def snapshot(self) -> Path:
        """The collection in one file, before it was changed."""
        return self.root / "collection.sqlite"

    @property
    def bulk(self) -> Path:
        """Every image embedded."""
        return self.root / "bulk"

    @property
    def bulk_half(self) -> Path:
        """The same job, killed on its way."""
        return self.root / "bulk-half"

    @property
    def site(self) -> "Before":
        """Store and collection once more, with a retraining that was killed between two stages in `work`."""
        return Before(self.root / "site")

    @property
    def retraining(self) -> list[str]:
        """The words of the retraining's command."""
        where = ("--store", self.store, "--collection", self.collection, "--work", self.root / "work")
        return [*map(str, where), *RETRAIN]


def make(root: Path) -> Before:
    """Run the earlier commands below `root`, which has `images`; skips the test where the history is absent."""
    made = Before(root)
    _check_out(root / "checkout")
    with _started(
        made, ["training.sources", "--images", made.images, "--out", made.data, "--image-size", SIZE]
    ) as first:
        _finish(first)
    often = ["training.pretrain", "--data", made.data, "--out", made.half, *PRETRAIN, "--checkpoint-seconds", "0.1"]
    with _started(made, *_main_line(made)) as main, _started(made, often) as half:
        _kill(half, lambda: _lines(made.half / "log.jsonl") >= 8 and (made.half / "checkpoint.safetensors").exists())
        _finish(main)
    shutil.copytree(made.store, made.site.store, copy_function=os.link)  # a release is never changed
    shutil.copytree(made.collection, made.site.collection)
    retraining, bulk = ["training.retrain", *made.site.retraining], [*_bulk(made), "--out", made.bulk_half]
    with _started(made, retraining) as retrained, _started(made, bulk) as embedded:
        _kill(embedded, lambda: len(list(made.bulk_half.glob("shard-*.json"))) >= 2)
        _kill(retrained, (made.site.root / "work/0001/stages/evaluate.attempts").exists)
    return made


def _main_line(made: Before) -> list[list[object]]:
    """What is run to its end, in order."""
    checkpoint, release, collection = made.whole / "checkpoint.safetensors", made.store / NAME / "1", made.collection
    given = ("--checkpoint", checkpoint, "--data", made.data)
    named = ("--name", NAME, "--store", made.store)
    where = ("--collection", collection)
    return [
        ["training.pretrain", "--data", made.data, "--out", made.whole, *PRETRAIN],
        ["training.evaluate", *given, "--out", made.evaluation, "--no-baselines", "--device", "cpu"],
        ["export.release", *named, *given, "--evaluation", made.evaluation, "--no-int8", "--no-champion"],
        ["export.store", "promote", "1", *named, "--force"],
        ["serving.ingest", "--release", release, *where, "--data", made.data, "--splits", "train,validation"],
        ["serving.snapshot", "save", *where, made.snapshot],
        ["-c", _EDITS.format(collection=str(collection), release=str(release))],
        ["serving.snapshot", "save", *where, "--name", "edited"],
        [*_bulk(made), "--out", made.bulk],
    ]


def _bulk(made: Before) -> list[object]:
    return ["serving.bulk", made.images, "--release", made.store / NAME / "1", *BULK]


def _check_out(folder: Path) -> None:
    """The earlier tree, without its history."""
    known = ["git", "-C", str(ROOT), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if shutil.which("git") is None or subprocess.run(known, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"commit {COMMIT[:7]} is not in this repository's history: the clone is shallow, or no clone")
    folder.mkdir(parents=True)
    tree = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=tree.stdout, check=True)


@contextmanager
def _started(made: Before, *commands: Sequence[object]) -> "Iterator[subprocess.Popen[bytes]]":
    """A process of its own group that runs these commands; it is killed if it is still there at the end."""
    texts = json.dumps([[str(word) for word in command] for command in commands])
    with (
        (made.root / "output.txt").open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _DRIVER, texts],
            cwd=made.root / "checkout",
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            elif process.returncode > 0:
                print((made.root / "output.txt").read_text(errors="replace")[-5000:])


def _finish(process: "subprocess.Popen[bytes]") -> None:
    assert process.wait(timeout=600) == 0, "an earlier command failed"


def _kill(process: "subprocess.Popen[bytes]", ready: Callable[[], bool]) -> None:
    """Kill with -9, the stages and workers too, as soon as it has come so far."""
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, "the earlier command ended before it was killed"
        assert time.monotonic() < deadline, "the earlier command did not get going"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
