"""Several processes at one collection, some of them killed: nothing that was acknowledged is lost or missed."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import SqliteCatalogue
from serving.collection.index.faiss.base_files import BaseFiles
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from tests.serving.collection.examples import RELEASE, assert_same, brute_force, fill, start, stored, unit_vectors

ROUNDS = int(os.environ.get("COLLECTION_ROUNDS", "3"))
QUERIES = unit_vectors(5, seed=77)
BATCH = 7


@contextmanager
def running(body: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed at the end, wherever it is."""
    with start(body, *arguments) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


def assert_whole(catalogue: Catalogue) -> None:
    """Searching is brute force over the rows in SQLite, and SQLite itself finds nothing wrong."""
    rows, vectors = stored(catalogue)
    assert_same(FaissIndex(catalogue, RELEASE).search(QUERIES, 20), brute_force(rows, vectors, QUERIES, 20))
    assert isinstance(catalogue, SqliteCatalogue)
    db = catalogue.database.connection
    assert db.execute("PRAGMA quick_check").get == "ok"
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []


WRITER = """
catalogue = open_catalogue(sys.argv[1])
number = 0
for line in sys.stdin:
    vector = unit_vectors(1, seed=1000 + number)
    catalogue.upsert([item("moving", label=str(number)), item(f"new{number}")], vector[[0, 0]], RELEASE)
    catalogue.delete([f"new{number - 3}"])
    print(number, flush=True)
    number += 1
"""


def test_a_reader_sees_every_write_that_another_process_acknowledged(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(120))
    compact(catalogue, RELEASE, Plan(kind="hnsw"))
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=0)
    with running(WRITER, tmp_path) as writer:
        assert writer.stdin is not None
        answers = lines(writer)
        for number in range(100):
            writer.stdin.write("go\n")
            writer.stdin.flush()
            assert next(answers) == str(number)
            found = neighbours.search(unit_vectors(1, seed=1000 + number), 2)
            items = catalogue.items.at(found.rows.ravel().tolist())
            assert [items[row].id for row in found.rows[0].tolist()] == ["moving", f"new{number}"]
            assert items[int(found.rows[0, 0])].label == str(number)
    assert catalogue.items.count() == 120 + 1 + 3


KILLED = """
from serving.collection.catalogue.writes import Change
catalogue = open_catalogue(sys.argv[1])
for number in range(int(sys.argv[2]), 1_000_000):
    names = [f"{number}-{part}" for part in range(7)]
    catalogue.upsert([item(name, part=number) for name in names], unit_vectors(7, seed=number), RELEASE)
    print("stored", number, flush=True)
    catalogue.update([Change(name, f"label{number}", {"part": None, "changed": True}) for name in names])
    print("updated", number, flush=True)
    if number % 2:
        catalogue.delete([f"{number - 1}-{part}" for part in range(7)])
        print("deleted", number - 1, flush=True)
"""


def test_killed_while_writing_nothing_acknowledged_is_lost_and_nothing_is_half(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    first = 0
    acknowledged: dict[str, set[int]] = {"stored": set(), "updated": set(), "deleted": set()}
    for turn in range(ROUNDS):
        heard = 0
        with running(KILLED, tmp_path, first) as writer:
            for line in lines(writer):
                word, number = line.split()
                acknowledged[word].add(int(number))
                heard += 1
                if heard == 5 + 3 * (turn % 7):
                    writer.send_signal(signal.SIGKILL)
        items = catalogue.items.page(limit=10_000).items
        batches = [int(item.id.split("-")[0]) for item in items]
        labelled = [number for number, item in zip(batches, items, strict=True) if item.label == f"label{number}"]
        assert {labelled.count(number) for number in set(labelled)} <= {BATCH}
        assert acknowledged["updated"] & set(batches) <= set(labelled)
        assert catalogue.items.count(parse_filter({"changed": True, "part": {"exists": False}})) == len(labelled)
        assert {batches.count(number) for number in set(batches)} <= {BATCH}
        assert acknowledged["stored"] - acknowledged["deleted"] - {max(acknowledged["stored"]) - 1} <= set(batches)
        assert acknowledged["deleted"].isdisjoint(batches)
        assert_whole(catalogue)
        first = 2 * (max([*acknowledged["stored"], *batches]) // 2 + 1)


COMPACTOR = """
catalogue = open_catalogue(sys.argv[1])
kind = sys.argv[2]
for number in range(int(sys.argv[3]), 1_000_000):
    fill(catalogue, unit_vectors(4, seed=number), prefix=f"c{number}-")
    print(number, flush=True)
    compact(catalogue, RELEASE, Plan(kind=kind))
"""


def stages(folder: Path) -> list[str]:
    """A temporary file that compaction writes, then a whole file that the catalogue may not name yet."""
    return [path.name for pattern in (".*.partial", "*.faiss") for path in folder.glob(pattern)]


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_killed_while_compacting_the_collection_is_whole_and_what_was_left_is_cleared(
    tmp_path: Path, kind: str
) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(150))
    compact(catalogue, RELEASE, Plan(kind=kind))
    acknowledged = -1
    for turn in range(2 * ROUNDS):
        before = set(stages(tmp_path))
        with running(COMPACTOR, tmp_path, kind, acknowledged + 1) as compactor:
            acknowledged = int(next(lines(compactor)))
            while not (new := set(stages(tmp_path)) - before):
                assert compactor.poll() is None
            if turn % 2:  # later: the next file, whichever it is
                while not set(stages(tmp_path)) - before - new:
                    assert compactor.poll() is None
        names = {item.id for item in catalogue.items.page(limit=10_000).items}
        assert {f"c{number}-{part}" for number in range(acknowledged + 1) for part in range(4)} <= names
        acknowledged = max([acknowledged, *(int(name[1:].split("-")[0]) for name in names if name.startswith("c"))])
        neighbours = FaissIndex(catalogue, RELEASE)
        rows, vectors = stored(catalogue)
        assert_same(neighbours.search(QUERIES, 20, exact=True), brute_force(rows, vectors, QUERIES, 20))
        neighbours.close()
        assert compact(catalogue, RELEASE, Plan(kind=kind))
        base = catalogue.bases.get(RELEASE)
        assert base is not None
        assert base.count == len(rows)
        left = {path.name for path in tmp_path.iterdir()} - {"compaction.lock", BaseFiles(Path(base.file)).seal.name}
        content = BaseFiles(Path(base.file)).content(approximate=kind != "exact")
        assert {name for name in left if not name.startswith("catalogue.")} == {path.name for path in content}


FULL_DISK = """
import resource, signal
catalogue = open_catalogue(sys.argv[1], create=True)
fill(catalogue, unit_vectors(1, 256), prefix="before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for number in range(1000):
        fill(catalogue, unit_vectors(20, 256, seed=number), prefix=f"{number}-")
        print(number, flush=True)
except CatalogueError as error:
    print("refused:", error)
print(len(FaissIndex(catalogue, RELEASE).search(unit_vectors(1, 256), 100_000).rows[0]))
"""


def test_on_a_full_disk_a_write_is_refused_and_reading_goes_on(tmp_path: Path) -> None:
    with start(FULL_DISK, tmp_path) as process:
        said, _ = process.communicate()
    *acknowledged, refusal, searched = said.splitlines()
    assert "took nothing of this write, is the disk full?" in refusal
    catalogue = open_catalogue(tmp_path)
    assert catalogue.items.get("before0") is not None
    assert catalogue.items.count() == 1 + 20 * len(acknowledged) == int(searched)
    fill(catalogue, unit_vectors(3, 256), prefix="after")
    assert catalogue.items.count() == 4 + 20 * len(acknowledged)


def test_a_log_that_was_cut_short_loses_whole_writes_only(tmp_path: Path) -> None:
    """As after a power cut with a disk that did not keep its word: never half a write, never a broken file."""
    whole = tmp_path / "whole"
    catalogue = open_catalogue(whole, create=True)
    for number in range(6):
        fill(catalogue, unit_vectors(10, seed=number), prefix=f"{number}-")
    files = {path.name: path.read_bytes() for path in whole.iterdir() if not path.name.endswith("-shm")}
    (log,) = [name for name in files if name.endswith("-wal")]
    seen = set()
    for share in np.linspace(0, 1, 8):
        cut = tmp_path / f"cut{share:.2f}"
        cut.mkdir()
        for name, content in files.items():
            (cut / name).write_bytes(content[: int(share * len(content))] if name == log else content)
        after = open_catalogue(cut, create=True)  # of the shortest log not even the tables are left
        assert after.items.count() % 10 == 0
        seen.add(after.items.count())
        if after.items.count():
            assert_whole(after)
    assert max(seen) == 60
    assert len(seen) > 2
