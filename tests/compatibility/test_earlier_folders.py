"""Folders that an earlier commit wrote open and go on."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cli.main import main as simclr
from core.images.decode import ImageError
from core.releases.manifest import Release
from core.releases.model_store import CHAMPION, ModelStore
from serving.client.client import Client
from serving.collection.catalogue.opening import open_catalogue
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.jobs.bulk.reader import read
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from tests.compatibility.before import BULK, NAME, PRETRAIN, ROOT, Before
from tests.training.processes import learnt


def run(*words: object) -> None:
    """A command of today."""
    assert simclr(list(map(str, words))) == 0


def run_apart(*words: object) -> None:
    """A command of today in a process of its own, with as many threads as the earlier ones had."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "cli", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0


def test_a_killed_pretraining_resumes_to_the_same_bits(before: Before, tmp_path: Path) -> None:
    half = shutil.copytree(before.half, tmp_path / "half")
    run_apart("pretrain", "--data", before.data, "--out", half, *PRETRAIN)
    assert learnt(half) == learnt(before.whole)


def test_a_finished_pretraining_is_not_done_again(before: Before, tmp_path: Path) -> None:
    whole = shutil.copytree(before.whole, tmp_path / "whole")
    run("pretrain", "--data", before.data, "--out", whole, *PRETRAIN)
    assert (whole / "checkpoint.safetensors").read_bytes() == (before.whole / "checkpoint.safetensors").read_bytes()


def test_an_evaluation_is_kept_and_another_comes_to_the_same_figures(before: Before, tmp_path: Path) -> None:
    kept = shutil.copytree(before.evaluation, tmp_path / "kept")
    given = ("--data", before.data, "--checkpoint", before.whole / "checkpoint.safetensors", "--no-baselines")
    times = {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.name != ".lock" and path.is_file()}
    run("evaluate", *given, "--out", kept, "--device", "cpu")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    run_apart("evaluate", *given, "--out", tmp_path / "anew", "--device", "cpu")
    earlier, now = (json.loads((folder / "metrics.json").read_text()) for folder in (kept, tmp_path / "anew"))
    assert now == earlier


def test_a_half_done_bulk_job_comes_to_the_same_bytes(before: Before, tmp_path: Path) -> None:
    half = shutil.copytree(before.bulk_half, tmp_path / "half")
    finished = len(list(half.glob("shard-*.json")))
    assert 0 < finished < len(list(before.bulk.glob("shard-*.json")))
    run("bulk", before.images, "--release", before.store / NAME / "1", *BULK, "--out", half)
    for path in before.bulk.glob("[!.]*"):
        assert (half / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_release_embeds_as_before(before: Before) -> None:
    release = Release(before.store / NAME / "1")
    release.verify()
    engine = Engine.open(release.folder, options=EngineOptions(form="onnx"))
    ids, embeddings = embedded(before)
    found = engine.embed_files([(before.images / name).read_bytes() for name in ids[:20]])
    vectors = [one.embedding for one in found if not isinstance(one, ImageError)]
    np.testing.assert_allclose(vectors, embeddings[:20], atol=1e-5)


def embedded(before: Before) -> tuple[list[str], NDArray[np.float32]]:
    """Every image's path below `images`, and its embedding as the earlier bulk job wrote it."""
    shards = list(read(before.bulk))
    names = [name for shard in shards for name in shard.ids]
    return names, np.concatenate([shard.embeddings for shard in shards])


def test_snapshots_are_restored(before: Before, tmp_path: Path) -> None:
    whole, edited = tmp_path / "whole", shutil.copytree(before.collection, tmp_path / "edited")
    catalogue = open_catalogue(edited)
    items = catalogue.items.count()
    run("restore", before.snapshot, "--collection", whole)
    assert open_catalogue(whole).items.count() == items + 1
    catalogue.delete([item.id for item in catalogue.items.page(limit=50).items])
    run("restore", "edited", "--collection", edited, "--named", "--replace")
    assert catalogue.items.count() == items


@pytest.fixture(scope="module")
def server(before: Before) -> Iterator[Server]:
    """A server of today on the earlier archive and collection, which follows the store."""
    site = before.site
    with Server(Settings(store=site.store, name=NAME, collection=site.collection, port=0, workers=1)) as running:
        yield running


def test_an_archive_is_served_with_its_collection(before: Before, server: Server) -> None:
    ids, embeddings = embedded(before)
    with Client(server.url) as client:
        assert client.describe()["release"] == f"{NAME}/1"
        found = client.embed([before.images / name for name in ids[:5]])
        np.testing.assert_allclose(found, embeddings[:5], atol=1e-2)
        items = list(client.items(filter={"place.town": "Kiel"}))
        assert sorted(item["metadata"]["year"] for item in items) == list(range(2020, 2030))
        nearest = client.search(ids=[items[0]["id"]], k=5, filter={"year": {"gte": 2025}})
        assert len(nearest[0]["neighbours"]) == 5
        client.upsert([{"id": "new", "image": before.images / ids[0]}])
        assert client.search([before.images / ids[0]], k=2)[0]["neighbours"][0]["score"] > 0.999
        client.delete(["new"])


def test_a_retraining_goes_on_and_the_server_follows(before: Before, server: Server) -> None:
    site = before.site
    run_apart("retrain", *site.retraining)
    assert ModelStore(site.store, NAME).alias(CHAMPION) == 2
    summary = json.loads((site.root / "work/0001/summary.json").read_text())
    assert summary["outcome"] == "promoted"
    assert {stage: done["attempts"] for stage, done in summary["stages"].items()} == {
        **dict.fromkeys(("freeze", "pretrain", "export", "embed", "promote"), 1),
        "evaluate": 2,
    }
    with Client(server.url) as client:
        assert client.describe()["release"] == f"{NAME}/2"
        assert len(client.search(ids=["train/cat/0000.jpg"], k=3)[0]["neighbours"]) == 3
