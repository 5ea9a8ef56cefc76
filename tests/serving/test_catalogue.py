import contextlib
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.catalogue import FILE_NAME, Catalogue, CatalogueError, Item

RELEASE = "a" * 64


def items(*names: str, label: str | None = None) -> list[Item]:
    return [Item(name, label, f"/images/{name}", hashlib.sha256(name.encode()).digest()) for name in names]


def unit_vectors(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    norms: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / norms, np.float32)


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    vectors = unit_vectors(2)
    assert catalogue.upsert(items("a", "b", label="cat"), vectors, RELEASE) == 1
    again = Catalogue(tmp_path)
    assert again.get("b") == items("b", label="cat")[0]
    assert again.get("nothing") is None
    stored = again.vectors_of(["b", "a", "nothing"], RELEASE)
    assert set(stored) == {"a", "b"}
    assert (stored["b"] == vectors[1]).all()


def test_upsert_is_idempotent_by_id_and_counts_writes(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    catalogue.upsert(items("a"), unit_vectors(1), RELEASE)
    changed = unit_vectors(1, seed=5)
    assert catalogue.upsert(items("a", label="new"), changed, RELEASE) == 2
    assert catalogue.count(RELEASE) == 1
    assert catalogue.get("a") == items("a", label="new")[0]
    assert (catalogue.vectors_of(["a"], RELEASE)["a"] == changed[0]).all()


def test_vectors_of_two_releases_stay_apart(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    catalogue.upsert(items("a"), unit_vectors(1), RELEASE)
    catalogue.upsert(items("a"), unit_vectors(1, seed=1), "b" * 64)
    assert catalogue.count(RELEASE) == catalogue.count("b" * 64) == 1
    assert not (catalogue.vectors_of(["a"], RELEASE)["a"] == catalogue.vectors_of(["a"], "b" * 64)["a"]).all()


def test_keep_only_deletes_the_rest_with_their_vectors(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    catalogue.upsert(items("a", "b", "c"), unit_vectors(3), RELEASE)
    assert catalogue.keep_only(["b"]) == 2
    assert list(catalogue.known(RELEASE)) == ["b"]
    assert catalogue.count(RELEASE) == 1


def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    broken = [*items("a"), Item("b", None, None, None)]  # type: ignore[arg-type] # NOT NULL refuses it
    with pytest.raises(Exception, match="NOT NULL"):
        catalogue.upsert(broken, unit_vectors(2), RELEASE)
    assert catalogue.count(RELEASE) == 0
    assert catalogue.sequence(RELEASE) == 0


def test_writers_and_readers_of_a_new_catalogue_do_not_disturb_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER.format(root=str(ROOT)), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        while seen < 100:
            assert process.poll() is None
            with contextlib.suppress(CatalogueError):  # until it is there
                seen = Catalogue(tmp_path).count(RELEASE)
        process.kill()


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no collection"):
        Catalogue(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, though it is long enough to be read as one" * 40)
    with pytest.raises(CatalogueError, match="no usable SQLite file"):
        Catalogue(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path, create=True)
    catalogue._db.pragma("user_version", 99)
    catalogue.close()
    with pytest.raises(CatalogueError, match="schema 99"):
        Catalogue(tmp_path)


WRITER = """
import sys
sys.path.insert(0, {root!r})
from tests.serving.test_catalogue import *
catalogue = Catalogue(sys.argv[1], create=True)
for number in range(100_000):
    names = [f"{{number}}-{{part}}" for part in range(20)]
    catalogue.upsert(items(*names), unit_vectors(20, dim=256), RELEASE)
    print(number, flush=True)
"""
ROOT = Path(__file__).parents[2]


def test_killed_while_writing_nothing_acknowledged_is_lost_and_nothing_is_half(tmp_path: Path) -> None:
    acknowledged = -1
    for kill_after in (3, 11, 27):
        command = [sys.executable, "-c", WRITER.format(root=str(ROOT)), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                acknowledged = max(acknowledged, int(line))
                if int(line) == kill_after:
                    process.send_signal(signal.SIGKILL)
        known = Catalogue(tmp_path).known(RELEASE)
        batches = {name.split("-")[0] for name in known}
        assert {str(number) for number in range(acknowledged + 1)} <= batches
        assert len(known) == 20 * len(batches)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {root!r})
from tests.serving.test_catalogue import *
catalogue = Catalogue(sys.argv[1], create=True)
catalogue.upsert(items("before"), unit_vectors(1, dim=256), RELEASE)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(1000):
        catalogue.upsert(items(*[f"{{number}}-{{part}}" for part in range(20)]), unit_vectors(20, dim=256), RELEASE)
        print(number, flush=True)
except CatalogueError as error:
    print("refused:", error)
"""


def test_when_no_more_can_be_written_the_write_is_refused_and_the_rest_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK.format(root=str(ROOT)), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *acknowledged, refusal = done.stdout.splitlines()
    assert refusal.startswith("refused:")
    known = Catalogue(tmp_path).known(RELEASE)
    assert "before" in known
    assert len(known) == 1 + 20 * len(acknowledged)
