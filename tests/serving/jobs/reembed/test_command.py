"""The real command on a real collection: whole, killed, shared, over pictures that can't be read; and giving up spaces.

The matrix releases stand for encoders, as in the tests of bulk embedding.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import numpy as np
import psutil
import pytest

from core.command_line.command import main
from core.images.decode import decode
from core.releases.manifest import Release
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME
from serving.collection.catalogue.sqlite.spaces import SqliteSpaces
from serving.collection.commands.spaces import COMMAND as SPACES
from serving.engine import Engine
from serving.jobs.reembed.command import COMMAND
from tests.serving.jobs.conftest import ROOT, SIZE, write_images, write_release

COUNT = 600
REEMBED = "import sys, serving.jobs.reembed.command as command; sys.exit(command.main(command.COMMAND, sys.argv[1:]))"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), [f"{number:03d}.png" for number in range(40)])


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    store = tmp_path_factory.mktemp("store")
    return write_release(store / "1", version=1), write_release(store / "2", version=2)


@pytest.fixture
def catalogue(releases: tuple[Release, Release], images: Path, tmp_path: Path) -> Catalogue:
    """A collection that the first release is complete in: some pictures kept, others in their files."""
    made = open_catalogue(tmp_path / "collection", create=True)
    made.spaces.open(releases[0].space)
    files = sorted(images.iterdir())
    contents = [file.read_bytes() for file in files]
    vectors = Engine.open(releases[0].folder).embed(np.stack([decode(one, SIZE) for one in contents])).embedding
    for start in range(0, COUNT, len(files)):
        sources = [
            Source.kept(one) if start % 80 else Source.at(str(file), one)
            for file, one in zip(files, contents, strict=True)
        ]
        items = [Item(f"n{start + place}", source) for place, source in enumerate(sources)]
        made.upsert(items, vectors, releases[0].space)
    return made


def arguments(catalogue: Catalogue, release: Release, *more: object) -> list[str]:
    given = ["--release", release.folder, "--collection", catalogue.folder, "--processes", 1, *more]
    return [*map(str, given)]


@contextmanager
def running(code: str, given: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """The command in a process group of its own, of which nothing is left at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *given],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_whole(catalogue: Catalogue, release: Release, images: Path) -> None:
    """Every item has the vector that the engine computes of its picture."""
    files = sorted(images.iterdir())
    expected = Engine.open(release.folder).embed(np.stack([decode(one.read_bytes(), SIZE) for one in files])).embedding
    names = [f"n{number}" for number in range(COUNT)]
    found = catalogue.vectors.of(names, release.space)
    wanted = np.concatenate([expected] * (COUNT // len(files)))
    np.testing.assert_allclose(np.stack([found[name] for name in names]), wanted, atol=1e-6)
    space = catalogue.spaces.get(release.space)
    assert space is not None
    assert (space.complete, space.pending, space.failed) == (True, 0, 0)


def test_killed_in_the_middle_it_goes_on_where_it_was(
    catalogue: Catalogue, releases: tuple[Release, Release], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = releases[1]
    with running(REEMBED, arguments(catalogue, second, "--nice")) as process:
        deadline = time.monotonic() + 120
        while not (stored := len(catalogue.vectors.census(second.space).rows)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        assert psutil.Process(process.pid).nice() > os.nice(0)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert stored > 0
    assert main(COMMAND, arguments(catalogue, second, "--index")) == 0
    said = capsys.readouterr()
    assert f"{COUNT} vectors by matrix/2, 0 items unreadable, complete" in said.out
    assert f"index: exact of {COUNT}, recall@10 1.000" in said.out
    assert_whole(catalogue, second, images)
    base = catalogue.bases.get(second.space)
    assert base is not None
    assert base.count == COUNT
    assert main(COMMAND, arguments(catalogue, second)) == 0  # nothing to do


def test_two_tasks_share_the_work(
    catalogue: Catalogue, releases: tuple[Release, Release], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = [arguments(catalogue, releases[1], "--task-index", index, "--task-count", 2) for index in range(2)]
    assert main(COMMAND, shares[0]) == 0
    assert f"{COUNT // 2} vectors by matrix/2, 0 items unreadable, not complete: {COUNT // 2} items wait" in (
        capsys.readouterr().out
    )
    with running(REEMBED, shares[0]) as again, running(REEMBED, shares[1]) as other:
        for process in (again, other):
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    assert "complete" in output
    assert_whole(catalogue, releases[1], images)


def test_a_backlog_that_grows_at_the_last_moment_is_embedded_too(
    catalogue: Catalogue,
    releases: tuple[Release, Release],
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """More begin to wait than may be left over, when all was embedded and the space is about to be settled."""
    monkeypatch.setattr("serving.jobs.reembed.reembed._FEW", 2)
    away = (images / "007.png").rename(images / "away")
    settle_but = SqliteSpaces.settle_but

    def settle_after_others(self: SqliteSpaces, space: str, few: int) -> None:
        if away.exists():
            away.rename(images / "007.png")
            self.retry_failed(space)
        settle_but(self, space, few)

    monkeypatch.setattr(SqliteSpaces, "settle_but", settle_after_others)
    assert main(COMMAND, arguments(catalogue, releases[1], "--index")) == 0
    said = capsys.readouterr()
    assert "8 more items wait since then" in caplog.text
    assert f"{COUNT} vectors by matrix/2, 0 items unreadable, complete" in said.out
    assert f"index: exact of {COUNT}" in said.out
    assert_whole(catalogue, releases[1], images)


def test_a_space_that_fills_again_before_the_end_is_no_success(
    catalogue: Catalogue,
    releases: tuple[Release, Release],
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another command has what could not be read tried again, just when this one has settled the space."""
    settle = SqliteSpaces.settle

    def settle_and_retry(self: SqliteSpaces, space: str) -> None:
        settle(self, space)
        self.retry_failed(space)

    monkeypatch.setattr(SqliteSpaces, "settle", settle_and_retry)
    away = (images / "007.png").rename(images / "away")
    try:
        assert main(COMMAND, arguments(catalogue, releases[1], "--index")) == 1
    finally:
        away.rename(images / "007.png")
    assert "8 items wait again" in (said := capsys.readouterr()).err, said
    assert "index:" not in said.out


def test_what_can_not_be_read_is_told_and_tried_again_when_asked(
    catalogue: Catalogue, releases: tuple[Release, Release], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = (images / "007.png").rename(images / "away")
    try:
        assert main(COMMAND, arguments(catalogue, releases[1])) == 0
    finally:
        away.rename(images / "007.png")
    said = capsys.readouterr()
    failed = COUNT // 40 - COUNT // 80
    assert f"{COUNT - failed} vectors by matrix/2, {failed} items unreadable, complete" in said.out
    assert re.search(r"left out n7: .*No such file", said.err)
    assert main(COMMAND, arguments(catalogue, releases[1], "--retry")) == 0
    assert_whole(catalogue, releases[1], images)


def test_a_disk_that_is_lost_ends_it_and_no_item_is_given_up(
    catalogue: Catalogue, releases: tuple[Release, Release], images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = images.rename(images.with_name("unmounted"))
    try:
        assert main(COMMAND, arguments(catalogue, releases[1], "--index")) == 1
        images.mkdir()  # as a place to mount it is left
        assert main(COMMAND, arguments(catalogue, releases[1])) == 1
        images.rmdir()
    finally:
        away.rename(images)
    said = capsys.readouterr()
    path = re.escape(str(images))
    assert re.search(
        rf"error: {path}/0\d\d.png of item 'n\d+' can't be read now: .*{path} is empty or missing", said.err
    )
    assert said.err.count("the same command goes on from there") == 2
    space = catalogue.spaces.get(releases[1].space)
    assert space is not None
    assert (space.complete, space.failed) == (False, 0)
    assert main(COMMAND, arguments(catalogue, releases[1])) == 0
    assert_whole(catalogue, releases[1], images)


def test_where_nothing_can_be_read_it_fails(
    releases: tuple[Release, Release], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    vectors = np.eye(1, 16, dtype=np.float32)
    catalogue.upsert([Item("a", Source.kept(b"no image"))], vectors, releases[0].space)
    assert main(COMMAND, arguments(catalogue, releases[1])) == 1
    assert "none of the items can be read" in capsys.readouterr().err
    assert main(COMMAND, ["--release", str(releases[1].folder), "--collection", str(tmp_path / "none")]) == 1
    assert "no collection" in capsys.readouterr().err


def test_spaces_are_listed_and_given_up(
    catalogue: Catalogue, releases: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = releases
    catalogue.spaces.open(second.space)
    command = ["--collection", str(catalogue.folder)]
    assert main(SPACES, [*command, "list"]) == 0
    said = capsys.readouterr().out
    assert re.search(rf"{first.space[:16]}  complete +{COUNT} +0 +0  -", said)
    assert re.search(rf"{second.space[:16]}  filling +0 +{COUNT} +0  -", said)
    assert main(SPACES, [*command, "close", str(first.folder)]) == 0
    assert f"would remove space {first.space[:16]} with {COUNT} vectors" in capsys.readouterr().out
    assert len(catalogue.spaces.all()) == 2
    assert main(SPACES, [*command, "close", first.space[:8], "--yes"]) == 0
    assert [space.release for space in catalogue.spaces.all()] == [second.space]
    assert len(catalogue.vectors.census(first.space).rows) == 0
    assert main(SPACES, [*command, "close", "no such"]) == 1
    assert "names 0 spaces" in capsys.readouterr().err


def test_a_space_that_is_opened_again_while_it_is_closed_is_not_said_to_be_removed(
    catalogue: Catalogue, releases: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(apsw.Connection(str(catalogue.folder / FILE_NAME))) as db:  # as a server would, at the worst moment
        again = "INSERT INTO spaces(release, complete) VALUES (OLD.release, 0)"
        db.execute(f"CREATE TRIGGER again AFTER DELETE ON spaces BEGIN {again}; END")
    assert main(SPACES, ["--collection", str(catalogue.folder), "close", releases[0].space, "--yes"]) == 1
    said = capsys.readouterr()
    assert "was opened again meanwhile: some process uses its release" in said.err
    assert "removed" not in said.out
