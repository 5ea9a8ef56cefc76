"""Snapshots that a collection keeps by name: whole or not at all, one job at a time, whatever was killed before."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.command_line.command import main
from core.files.durable import sha256_of
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.commands.snapshot import COMMAND, restore, save
from serving.collection.errors import CollectionError, SnapshotError
from serving.collection.snapshots.jobs import Jobs, JobUnderWay
from serving.collection.snapshots.named import NamedSnapshots, check_name, room_lacking
from tests.disks import small_disk
from tests.serving.collection.examples import ROOT, clustered_vectors, fill

HOLD = """
import sys
from pathlib import Path
from serving.collection.snapshots.jobs import Jobs
jobs = Jobs(Path(sys.argv[1]))
with jobs.alone():
    jobs.begin("save", "cut-off")
    print("begun", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    made = open_catalogue(tmp_path / "collection", create=True)
    fill(made, clustered_vectors(40))
    return made


def files(snapshots: NamedSnapshots) -> set[str]:
    return {path.name for path in snapshots.folder.iterdir()}


def test_a_snapshot_is_kept_with_its_size_and_digest(catalogue: Catalogue) -> None:
    snapshots = NamedSnapshots(catalogue.folder)
    assert snapshots.listed() == []
    kept = snapshots.save(catalogue, "monday")
    file = snapshots.verified("monday")
    assert snapshots.listed() == [kept] == [snapshots.find("monday")]
    assert (kept.items, kept.bytes, kept.sha256) == (40, file.stat().st_size, sha256_of(file))
    assert kept.bytes <= catalogue.snapshots.bytes_needed()


def test_the_same_name_again_replaces_and_leaves_no_file(catalogue: Catalogue) -> None:
    snapshots = NamedSnapshots(catalogue.folder)
    first = snapshots.save(catalogue, "latest")
    catalogue.delete(["n1"])
    (snapshots.folder / ".latest.0.sqlite.partial").write_bytes(b"of a killed process")
    (snapshots.folder / "latest.0.sqlite").write_bytes(b"of another")
    second = snapshots.save(catalogue, "latest")
    assert (first.items, second.items) == (40, 39)
    assert files(snapshots) == {"latest.json", second.file}
    snapshots.remove("latest")
    assert files(snapshots) == set()
    with pytest.raises(SnapshotError, match="no snapshot 'latest'"):
        snapshots.remove("latest")


def test_a_save_that_fails_keeps_the_old_one(catalogue: Catalogue, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1_500_000) as disk:
        own = open_catalogue(disk / "collection", create=True)
        fill(own, clustered_vectors(40))
        snapshots = NamedSnapshots(own.folder)
        kept = snapshots.save(own, "safe")
        (disk / "filler").write_bytes(bytes(500_000))
        fill(own, clustered_vectors(600), prefix="more")
        assert room_lacking(own.folder, own.snapshots.bytes_needed(), reserve=0) > 0
        with pytest.raises((CollectionError, OSError)):
            snapshots.save(own, "safe")
        assert snapshots.listed() == [kept]
        assert files(snapshots) == {"safe.json", kept.file}
        assert snapshots.verified("safe").is_file()
        assert main(COMMAND, ["save", "--collection", str(own.folder), "--name", "safe"]) == 1
        (job,) = Jobs(own.folder).listed()
        assert (job.state, job.error) == ("failed", "the collection's disk is probably full; all is as it was before")
        own.close()


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", ".hidden", "a b", "x" * 65, "naïve", "a\n", "-a"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(SnapshotError, match="can't be called"):
        check_name(name)


def test_a_file_that_is_not_the_one_that_was_written_is_refused(catalogue: Catalogue) -> None:
    snapshots = NamedSnapshots(catalogue.folder)
    file = snapshots.folder / snapshots.save(catalogue, "monday").file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    command = ["restore", "--collection", str(catalogue.folder), "--name", "monday", "--replace"]
    assert main(COMMAND, command) == 1
    assert "is damaged" in str(Jobs(catalogue.folder).listed()[0].error)
    file.unlink()
    assert main(COMMAND, command) == 1
    assert catalogue.items.count() == 40


def test_the_job_saves_and_restores_by_name(catalogue: Catalogue) -> None:
    given = ["--collection", str(catalogue.folder), "--name", "monday"]
    assert main(COMMAND, ["save", *given]) == 0
    catalogue.delete(["n1", "n2"])
    assert [(kept.name, kept.items) for kept in NamedSnapshots(catalogue.folder).listed()] == [("monday", 40)]
    assert main(COMMAND, ["restore", *given]) == 1  # it has items
    assert main(COMMAND, ["restore", *given, "--replace"]) == 0
    assert catalogue.items.count() == 40
    assert [(job.what, job.state, job.items) for job in Jobs(catalogue.folder).listed()] == [
        ("restore", "done", 40),
        ("restore", "failed", None),
        ("save", "done", 40),
    ]
    NamedSnapshots(catalogue.folder).remove("monday")
    assert main(COMMAND, ["restore", *given, "--replace"]) == 1
    for wrong in (["save"], ["list", *given], ["save", "file", *given[:2]]):
        with pytest.raises(SystemExit):
            main(COMMAND, wrong)


def test_one_job_at_a_time_and_a_killed_one_has_failed(catalogue: Catalogue) -> None:
    jobs = Jobs(catalogue.folder)
    assert jobs.listed() == []
    command = [sys.executable, "-c", HOLD, str(catalogue.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"begun\n"
        assert [(job.name, job.state) for job in jobs.listed()] == [("cut-off", "running")]
        with pytest.raises(JobUnderWay), jobs.alone():
            pass
        os.kill(holder.pid, signal.SIGKILL)
    (job,) = jobs.listed()
    assert (job.state, job.error) == ("failed", "it was stopped before it was done, and nothing of it was kept")
    with jobs.alone():
        begun = jobs.begin("restore", "next")
        assert [one.state for one in jobs.listed()] == ["running", "failed"]
        jobs.end(begun.id, items=3)
    assert [(one.name, one.state, one.items) for one in jobs.listed()] == [
        ("next", "done", 3),
        ("cut-off", "failed", None),
    ]


def test_a_collection_goes_into_a_file_and_comes_back_from_it(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "one.sqlite"
    assert save(catalogue.folder, file) == 40
    with pytest.raises(SnapshotError, match="has 40 items; --replace gives them up"):
        restore(catalogue.folder, file)
    fill(catalogue, clustered_vectors(3), prefix="later")
    assert restore(catalogue.folder, file, replace=True) == 40
    assert restore(tmp_path / "new", file) == catalogue.items.count() == 40


BROKEN_ENTRIES = {
    "no JSON": b"{nonsense",
    "empty": b"",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "not UTF-8": b'{"name": "\xff"}',
    "a file elsewhere": b'{"name":"bad","file":"../catalogue.sqlite","items":1,"bytes":1,"sha256":"%b","created":0}',
    "another name": b'{"name":"good","file":"good.00.sqlite","items":1,"bytes":1,"sha256":"%b","created":0}',
    "impossible numbers": b'{"name":"bad","file":"bad.00.sqlite","items":-1,"bytes":1,"sha256":"%b","created":0}',
}


@pytest.mark.parametrize("how", BROKEN_ENTRIES)
def test_a_broken_entry_hides_no_other_and_can_be_replaced_and_removed(catalogue: Catalogue, how: str) -> None:
    snapshots = NamedSnapshots(catalogue.folder)
    good, bad = snapshots.save(catalogue, "good"), snapshots.save(catalogue, "bad")
    (snapshots.folder / "bad.json").write_bytes(BROKEN_ENTRIES[how].replace(b"%b", b"0" * 64))
    assert snapshots.listed() == [good]
    with pytest.raises(SnapshotError, match="snapshot 'bad'"):
        snapshots.verified("bad")
    snapshots.save(catalogue, "another")
    assert bad.file in files(snapshots)  # it may still be what the entry meant
    snapshots.remove("bad")
    assert bad.file not in files(snapshots)
    (snapshots.folder / "bad.json").write_bytes(BROKEN_ENTRIES[how].replace(b"%b", b"0" * 64))
    assert [kept.name for kept in (snapshots.save(catalogue, "bad"), *snapshots.listed())][-2:] == ["bad", "good"]
    assert (catalogue.folder / "catalogue.sqlite").is_file()


def test_a_link_is_no_snapshot(catalogue: Catalogue, tmp_path: Path) -> None:
    snapshots = NamedSnapshots(catalogue.folder)
    file = snapshots.folder / snapshots.save(catalogue, "monday").file
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="is damaged"):
        snapshots.verified("monday")


def test_a_broken_journal_is_begun_anew(catalogue: Catalogue) -> None:
    given = ["--collection", str(catalogue.folder), "--name", "monday"]
    assert main(COMMAND, ["save", *given]) == 0
    (catalogue.folder / "snapshots/.jobs.json").write_bytes(b"[{")
    jobs = Jobs(catalogue.folder)
    assert jobs.listed() == []
    assert main(COMMAND, ["save", *given, "--job", "gone"]) == 1
    assert main(COMMAND, ["save", *given]) == 0
    assert [job.state for job in jobs.listed()] == ["done"]
