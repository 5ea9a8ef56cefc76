"""What drift says of a collection: who is old and who is new, the figures, and the rule."""

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.command_line.command import main
from core.images.seen import contents
from core.releases.manifest import FILE_NAME, Release, to_json
from core.releases.model_store import find_release
from serving.client.client import Client
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.drift.command import COMMAND, NEEDED
from serving.collection.drift.discrepancy import discrepancy
from serving.collection.drift.drift import Drift, Reference, drift, needed
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer
from serving.protocol.operations import StatsRequest
from tests.conftest import Chain

ROOT = Path(__file__).parents[4]
SPACE = "a" * 64
CALM = Drift("small/1", "picture", 1000, 150, 850, 150, mmd2=0.0001, p=0.4, unsure_old=0.2, unsure_new=0.22)


def vectors_of(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 16)) + shift
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def store(catalogue: Catalogue, prefix: str, vectors: np.ndarray) -> int:
    items = [Item(f"{prefix}{at}", Source.kept(f"{prefix}{at}".encode())) for at in range(len(vectors))]
    return catalogue.upsert(items, vectors, SPACE).seq


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return open_catalogue(tmp_path / "collection", create=True)


def test_old_is_what_the_training_could_see_and_a_replaced_item_is_new(catalogue: Catalogue) -> None:
    old, new = vectors_of(300, 1), vectors_of(40, 2)
    seq = store(catalogue, "old", old)
    store(catalogue, "new", new)
    replaced = vectors_of(20, 3)
    catalogue.upsert([Item(f"old{at}", Source.kept(b"other")) for at in range(20)], replaced, SPACE)
    found = drift(catalogue, Reference("small/1", SPACE, seq, 0, None))
    assert (found.items, found.new, found.compared_old, found.compared_new) == (340, 60, 280, 60)
    assert found.new_share == pytest.approx(60 / 340)
    expected = discrepancy(old[20:], np.concatenate([replaced, new]))
    assert found.mmd2 == pytest.approx(expected.mmd2, abs=1e-6)
    assert found.unsure_new is None


def test_without_a_sequence_number_old_is_what_was_created_before(catalogue: Catalogue) -> None:
    store(catalogue, "old", vectors_of(30, 1))
    last = max(item.created for item in catalogue.items.page(limit=30).items)
    release = Reference("small/1", SPACE, 0, last + 1, None)
    assert drift(catalogue, release).new == 0
    assert drift(catalogue, replace(release, created=last)).new > 0
    assert drift(catalogue, replace(release, created=0)).new == 30


def test_a_release_that_lists_its_pictures_knows_them_whenever_they_came(catalogue: Catalogue) -> None:
    store(catalogue, "a", vectors_of(30, 1))
    listed = np.sort(contents(sha256(f"a{at}".encode()).digest() for at in range(20)))
    release = Reference("small/1", SPACE, 0, 0, None, listed)  # by time alone, all would be new
    found = drift(catalogue, release)
    assert (found.told_by, found.new, found.compared_old) == ("picture", 10, 20)
    catalogue.upsert([Item("again", Source.kept(b"a3"))], vectors_of(1, 2), SPACE)
    catalogue.upsert([Item("a4", Source.kept(b"changed"))], vectors_of(1, 3), SPACE)
    found = drift(catalogue, release)
    assert (found.items, found.new) == (31, 11)  # the same picture under another id is old, another under the same new


def test_the_shares_of_unsure_predictions_are_those_of_the_softmax(catalogue: Catalogue) -> None:
    old, new = vectors_of(200, 1), vectors_of(150, 2, shift=0.3)
    seq = store(catalogue, "old", old)
    store(catalogue, "new", new)
    probe = np.random.default_rng(5).normal(size=(4, 17)).astype(np.float32) * 2
    found = drift(catalogue, Reference("small/1", SPACE, seq, 0, probe))
    for vectors, share in ((old, found.unsure_old), (new, found.unsure_new)):
        powers = np.exp(vectors.astype(np.float64) @ probe[:, :16].T + probe[:, 16])
        largest = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
        assert share == pytest.approx(np.mean(largest < 0.5))
        assert share not in (None, 0.0, 1.0)


def test_a_sample_is_compared_and_always_the_same(catalogue: Catalogue) -> None:
    seq = store(catalogue, "old", vectors_of(400, 1))
    store(catalogue, "new", vectors_of(300, 2, shift=0.2))
    release = Reference("small/1", SPACE, seq, 0, None)
    found = drift(catalogue, release, sample=100)
    assert (found.new, found.compared_old, found.compared_new) == (300, 100, 100)
    assert drift(catalogue, release, sample=100) == found
    assert drift(catalogue, release, sample=100, seed=1) != found


def test_an_empty_collection_and_an_unknown_space_have_no_figures(catalogue: Catalogue) -> None:
    found = drift(catalogue, Reference("small/1", SPACE, 0, 0, None))
    assert (found.items, found.new_share, found.mmd2, needed(found)) == (0, 0.0, None, (False, []))
    store(catalogue, "old", vectors_of(30, 1))
    found = drift(catalogue, Reference("small/1", "b" * 64, 1, 0, None))
    assert (found.items, found.compared_old, found.mmd2) == (30, 0, None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"new": 200}, "200 of 1000 items are new"),
        ({"new": 199}, None),
        ({"mmd2": 0.003, "p": 0.005}, "distributed otherwise"),
        ({"mmd2": 0.003, "p": 0.01}, None),
        ({"mmd2": 0.0019, "p": 0.005}, None),
        ({"mmd2": 0.3, "p": 0.005, "new": 99}, None),
        ({"mmd2": 0.3, "p": 0.005, "compared_new": 99}, None),
        ({"unsure_new": 0.31}, "unsure of 31% of new items, and of 20% of old ones"),
        ({"unsure_new": 0.29}, None),
        ({"unsure_new": 0.9, "new": 99}, None),
        ({"unsure_old": None, "unsure_new": None, "mmd2": None, "p": None}, None),
    ],
)
def test_the_rule(changes: dict[str, Any], reason: str | None) -> None:
    is_needed, reasons = needed(replace(CALM, **changes))
    assert is_needed == (reason is not None) == bool(reasons)
    assert reason is None or reason in reasons[0]


def as_trained_on(release: Release, folder: Path, seq: int) -> Path:
    """A release with the same probe and embedding space that says that it was trained on a collection."""
    folder.mkdir(parents=True)
    (folder / "probe.npy").write_bytes(release.file("probe.npy").read_bytes())
    manifest = release.manifest
    changed: dict[str, Any] = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    changed |= {"lineage": manifest.lineage | {"collection": {"seq": seq}}, "space": release.space}
    changed["files"] = {"probe.npy": manifest.files["probe.npy"]}
    (folder / FILE_NAME).write_bytes(to_json(type(manifest)(**changed)))
    return folder


def test_the_command_tells_by_its_exit_code(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seq = open_catalogue(chain.collection).stats().seq
    given = ["--collection", str(chain.collection), "--store", str(tmp_path)]
    as_trained_on(chain.release, tmp_path / "chain/1", seq)
    assert main(COMMAND, [*given, "--release", "chain/1"]) == 0
    assert "0 of 240 items are new" in capsys.readouterr().out
    as_trained_on(chain.release, tmp_path / "chain/2", 1)
    (tmp_path / "chain/aliases").mkdir()
    (tmp_path / "chain/aliases/champion").write_text("2\n")
    command = [
        sys.executable,
        "-m",
        "serving.collection.drift.command",
        *given,
        "--release",
        "chain/champion",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == NEEDED, done.stderr
    found = json.loads(done.stdout)
    assert found["new"] > 0.2 * 240
    assert found["needed"] is True
    assert 0 <= found["unsure_new"] <= 1
    assert main(COMMAND, [*given, "--release", "chain/9"]) == 1
    assert "there are: 1, 2, champion" in capsys.readouterr().err
    assert main(COMMAND, ["--release", str(tmp_path / "chain/1"), "--collection", str(tmp_path)]) == 1
    assert "is no collection" in capsys.readouterr().err


def test_a_release_is_found_by_folder_by_name_and_with_its_store(chain: Chain) -> None:
    for reference in (str(chain.release.folder), "chain/1", str(chain.store / "chain/1")):
        assert find_release(reference, chain.store).digest == chain.release.digest


def test_stats_carry_drift_where_it_is_asked_for(chain: Chain, engine: Engine) -> None:
    plain, asked = engine.answer([StatsRequest(), StatsRequest(include=frozenset(["drift"]))])
    assert isinstance(plain, Answer)
    assert isinstance(asked, Answer)
    assert "drift" not in plain.more
    found = asked.more.pop("drift")
    assert asked.more == plain.more
    assert (found["items"], found["new"], found["told_by"]) == (240, 0, "picture")  # though all came after the release
    assert found["needed"] is False


def test_the_probe_of_a_release_gives_its_logits(chain: Chain) -> None:
    engine = Engine.open(chain.release.folder, options=EngineOptions(form="onnx"))
    outputs = engine.embed(np.array(chain.data.images[:20]))
    probe = chain.release.probe()
    assert probe is not None
    assert probe.dtype == np.float32
    assert outputs.logits is not None
    np.testing.assert_allclose(outputs.embedding @ probe[:, :-1].T + probe[:, -1], outputs.logits, atol=1e-3)


def test_the_server_tells_it_from_the_archive_alone(chain: Chain, client: Client) -> None:
    assert "drift" not in client.stats()
    found = client.stats(drift=True)["drift"]
    assert found["release"] == "chain/1"
    assert found["told_by"] == "picture"  # the archive has the list
    assert found["compared_new"] == found["new"]
    assert 0 <= found["unsure_old"] <= 1  # and the probe's numbers
