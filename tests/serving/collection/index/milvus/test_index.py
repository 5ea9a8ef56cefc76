"""What only Milvus can get wrong: several processes, sending that stops half-way, late and repeated messages."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pymilvus import MilvusClient, MilvusException

from core.command_line.command import main
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, SqliteCatalogue
from serving.collection.commands.spaces import COMMAND as SPACES
from serving.collection.errors import IndexUnusable
from serving.collection.index.choice import IndexChoice
from serving.collection.index.milvus import index as milvus
from serving.collection.index.milvus.entities import Entities
from serving.collection.index.milvus.index import MilvusIndex
from serving.collection.index.milvus.tail import IDENTITY_NAME, name_in_milvus
from serving.collection.index.opening import open_milvus
from tests.serving.collection.examples import (
    QUERIES,
    RELEASE,
    assert_same,
    brute_force,
    fill,
    items,
    start,
    stored,
    unit_vectors,
)
from tests.serving.collection.openers import stop_milvus


@pytest.fixture
def local(tmp_path: Path) -> Iterator[IndexChoice]:
    """A milvus-lite folder in this process."""
    choice = IndexChoice.parse(f"milvus:{tmp_path / 'milvus.db'}")
    yield choice
    stop_milvus(str(choice))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IndexChoice]:
    """milvus-lite as a server of its own, reached as a cluster is."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        port = handle.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "data.db")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
    wait_until(lambda: answers(port))
    yield IndexChoice.parse(f"milvus:http://127.0.0.1:{port}")
    process.terminate()
    process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.005)


def check(index: MilvusIndex, catalogue: Catalogue, *, k: int = 10) -> None:
    """That almost all of what is best is found, and that Milvus has all there is."""
    found = index.search(QUERIES, k)
    expected = brute_force(*stored(catalogue), QUERIES, k)
    assert found.rows.shape == expected.rows.shape
    assert np.isin(found.rows, expected.rows).mean() > 0.95
    assert_same(index.search(QUERIES, k, exact=True), expected)


ECHO = """
from serving.collection.index.choice import IndexChoice
from serving.collection.index.opening import open_milvus
catalogue = open_catalogue(sys.argv[1])
index = open_milvus(catalogue, RELEASE, IndexChoice.parse(sys.argv[2]))
print("ready", flush=True)
for line in sys.stdin:
    seed = int(line)
    query = unit_vectors(1, seed=seed)
    if seed % 2:
        catalogue.upsert(items([f"w{seed % 6}"]), query, RELEASE)
        print("done", flush=True)
    else:
        print(index.search(query, 1).scores[0, 0], flush=True)
"""


def test_a_space_that_is_closed_is_dropped_in_milvus_too(
    catalogue: Catalogue, server: IndexChoice, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(catalogue, unit_vectors(30))
    catalogue.spaces.open(RELEASE)
    open_milvus(catalogue, RELEASE, server).close()
    name = name_in_milvus(catalogue.folder, RELEASE)
    there = MilvusClient(server.uri)
    assert there.has_collection(name)
    close = ["--collection", str(catalogue.folder), "close", RELEASE, "--index", str(server)]
    assert main(SPACES, close) == 0
    assert there.has_collection(name)
    away = [*close[:-1], f"milvus:{catalogue.folder / 'nowhere' / 'milvus.db'}", "--yes"]
    (catalogue.folder / "nowhere").write_text("no folder")
    assert main(SPACES, away) == 1
    assert catalogue.spaces.all(), "a space that Milvus could not drop is still there to be closed"
    assert main(SPACES, [*close, "--yes"]) == 0
    assert not [one for one in there.list_collections() if one.startswith(name)]
    assert "removed space" in capsys.readouterr().out
    assert not catalogue.spaces.all()
    there.close()


def test_two_processes_share_a_server_and_see_each_others_writes(catalogue: Catalogue, server: IndexChoice) -> None:
    fill(catalogue, unit_vectors(30))
    index = open_milvus(catalogue, RELEASE, server)
    child = start(ECHO, catalogue.folder, server)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"

    def ask(seed: int) -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{seed}\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    for turn in range(100, 140, 2):
        catalogue.upsert(items([f"w{turn % 6}"]), unit_vectors(1, seed=turn), RELEASE)
        assert float(ask(turn)) == pytest.approx(1.0, abs=1e-6)
        assert ask(turn + 1) == "done"
        assert index.search(unit_vectors(1, seed=turn + 1), 1).scores[0, 0] == pytest.approx(1.0, abs=1e-6)
    check(index, catalogue)
    child.stdin.close()
    child.wait()
    index.close()


SEND = """
from serving.collection.index.milvus import entities as milvus_entities
from serving.collection.index.choice import IndexChoice
from serving.collection.index.opening import open_milvus
milvus_entities._KEYS_AT_ONCE = 20  # many small messages
catalogue = open_catalogue(sys.argv[1])
open_milvus(catalogue, RELEASE, IndexChoice.parse(sys.argv[2]))
"""


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_process_killed_while_it_sends_leaves_work_that_the_next_one_does(
    catalogue: Catalogue, server: IndexChoice, first: bool
) -> None:
    """At its first, a new Milvus collection is half full; later, the one in use has half of the changes."""
    names = fill(catalogue, unit_vectors(3000))
    if not first:
        open_milvus(catalogue, RELEASE, server).close()
        catalogue.delete(names[:500])
        catalogue.upsert(items(names[500:2500]), unit_vectors(2000, seed=1), RELEASE)
    client, name = MilvusClient(server.uri), name_in_milvus(catalogue.folder, RELEASE)
    entities = Entities(server, name)
    position, count = entities.position(), 0 if first else entities.count()
    child = start(SEND, catalogue.folder, server)
    wait_until(lambda: total(client, name) > count + 100)
    child.kill()
    child.wait()
    assert entities.position() == position  # so it was killed before the end
    index = open_milvus(catalogue, RELEASE, server)
    check(index, catalogue)
    assert entities.count() >= len(index) == catalogue.items.count()
    assert len([one for one in client.list_collections() if one.startswith(name)]) == 1
    index.close()


def total(client: MilvusClient, name: str) -> int:
    """How many entities there are in all collections of ours."""
    count = 0
    for one in client.list_collections():
        if one.startswith(name):
            with suppress(MilvusException):  # one that is just being made
                count += int(client.query(one, filter="", output_fields=["count(*)"])[0]["count(*)"])
    return count


def test_messages_that_come_late_or_twice_change_no_answer(catalogue: Catalogue, local: IndexChoice) -> None:
    names = fill(catalogue, unit_vectors(60))
    index = open_milvus(catalogue, RELEASE, local)
    rows, old = stored(catalogue)
    before = catalogue.vectors.sequence(RELEASE)
    catalogue.upsert(items(names[:20]), unit_vectors(20, seed=1), RELEASE)
    catalogue.delete(names[20:40])
    check(index, catalogue)
    entities = Entities(local, name_in_milvus(catalogue.folder, RELEASE))
    entities.put(rows, old, before)  # by a worker that was killed
    entities.set_position(before, old.shape[1])
    entities.remove(rows, before)
    check(index, catalogue)
    again = open_milvus(catalogue, RELEASE, local)
    check(again, catalogue, k=40)
    index.close()
    again.close()


def test_fewer_in_milvus_than_in_the_catalogue_are_sent_anew(catalogue: Catalogue, local: IndexChoice) -> None:
    fill(catalogue, unit_vectors(60))
    open_milvus(catalogue, RELEASE, local).close()
    entities = Entities(local, name_in_milvus(catalogue.folder, RELEASE))
    entities.remove(np.arange(1, 11), 10**6)
    assert entities.count() == 50
    index = open_milvus(catalogue, RELEASE, local)
    assert entities.count() == 60
    check(index, catalogue)
    index.close()


def test_a_collection_dropped_while_it_is_searched_is_made_again(catalogue: Catalogue, local: IndexChoice) -> None:
    fill(catalogue, unit_vectors(60))
    index = open_milvus(catalogue, RELEASE, local)
    Entities(local, name_in_milvus(catalogue.folder, RELEASE)).drop()
    check(index, catalogue)
    index.close()


def test_a_catalogue_put_back_to_an_earlier_state_is_sent_anew(catalogue: Catalogue, local: IndexChoice) -> None:
    names = fill(catalogue, unit_vectors(60))
    assert isinstance(catalogue, SqliteCatalogue)
    catalogue.database.connection.pragma("wal_checkpoint", "TRUNCATE")
    saved = catalogue.folder / "saved"
    shutil.copy(catalogue.folder / FILE_NAME, saved)
    catalogue.delete(names[:30])
    open_milvus(catalogue, RELEASE, local).close()
    catalogue.close()
    for path in catalogue.folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    shutil.copy(saved, catalogue.folder / FILE_NAME)
    earlier = open_catalogue(catalogue.folder)
    index = open_milvus(earlier, RELEASE, local)
    assert len(index) == 60
    check(index, earlier)
    index.close()


def test_a_copy_of_a_folder_has_vectors_of_its_own_and_a_moved_one_keeps_them(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    open_catalogue(one, create=True)
    name = name_in_milvus(one, RELEASE)
    assert name_in_milvus(one, RELEASE) == name
    shutil.copytree(one, two)
    assert (two / IDENTITY_NAME).read_text() == (one / IDENTITY_NAME).read_text()
    assert name_in_milvus(two, RELEASE) != name
    shutil.rmtree(two)
    one.rename(two)
    assert name_in_milvus(two, RELEASE) == name
    assert name_in_milvus(two, "c" * 64) != name


def test_a_filter_of_more_rows_than_can_be_listed(
    catalogue: Catalogue, local: IndexChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus, "_LISTED", 50)
    fill(catalogue, unit_vectors(400))
    index = MilvusIndex(catalogue, RELEASE, local, few_rows=10)
    rows, vectors = stored(catalogue)
    for kept in (rows[:60], rows[::2], rows[50:]):
        expected = brute_force(kept, vectors[np.isin(rows, kept)], QUERIES, 20)
        found = index.search(QUERIES, 20, rows=kept)
        assert np.isin(found.rows, kept).all()
        assert np.isin(found.rows, expected.rows).mean() > 0.95
    index.close()


def test_a_second_process_on_a_local_folder_is_told_what_to_do(catalogue: Catalogue, local: IndexChoice) -> None:
    open_milvus(catalogue, RELEASE, local).close()
    body = """
from serving.collection.index.choice import IndexChoice
from serving.collection.index.opening import open_milvus
try:
    open_milvus(open_catalogue(sys.argv[1]), RELEASE, IndexChoice.parse(sys.argv[2]))
except IndexUnusable as error:
    print(error)
"""
    said = start(body, catalogue.folder, local).communicate()[0]
    assert "another process has it open" in said
    assert "milvus-lite server --data-dir" in said


def test_a_server_that_is_not_there_is_told_without_what_is_secret(catalogue: Catalogue) -> None:
    choice = IndexChoice.parse("milvus:http://root:secret@127.0.0.1:1")
    with pytest.raises(IndexUnusable, match=r"Milvus at http://...@127.0.0.1:1 can't be opened") as caught:
        open_milvus(catalogue, RELEASE, choice)
    assert "secret" not in str(caught.value) + repr(choice)


def test_without_pymilvus_it_is_told_what_to_install(catalogue: Catalogue) -> None:
    body = """
sys.modules["pymilvus"] = None
from serving.collection.index.choice import IndexChoice
from serving.collection.index.opening import open_milvus
try:
    open_milvus(open_catalogue(sys.argv[1]), RELEASE, IndexChoice.parse("milvus:http://127.0.0.1:1"))
except IndexUnusable as error:
    print(error)
"""
    assert "pip install pymilvus" in start(body, catalogue.folder).communicate()[0]


@pytest.mark.parametrize("text", ["", "hnsw", "milvus", "milvus:", "milvus:ftp://secret@host", "milvus:secret@folder"])
def test_an_index_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it must be faiss, milvus:http://HOST:PORT") as caught:
        IndexChoice.parse(text)
    assert "secret" not in str(caught.value)


def test_a_choice_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("faiss", "milvus:https://key@host:443", f"milvus:{os.getcwd()}/a.db"):
        assert str(IndexChoice.parse(text)) == text
    assert IndexChoice.parse("milvus:a.db") == IndexChoice.parse(f"milvus:{tmp_path}/a.db")
    assert IndexChoice.parse("milvus:a.db").local
    assert not IndexChoice.parse("milvus:http://host/a.db").local
