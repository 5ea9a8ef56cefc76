"""delete and collect: what stays, what goes, and what comes free."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.command_line.command import main
from core.files.locks import locked
from core.releases.archive_digest import digest_file, record
from core.releases.model_store import ModelStore
from core.releases.servers import ServerState
from export.publishing.versions import next_version
from export.store import history
from export.store.command import COMMAND
from export.store.errors import StoreError
from export.store.faults import faults_of
from export.store.locks import ARCHIVING, PUBLISHING
from export.store.promotion import promote
from export.store.removal import collect, delete
from tests.export.store.small import approved, make_release

ROOT = Path(__file__).parents[3]


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.name.endswith(".lock")}


def server_says(store: ModelStore, **changes: Any) -> Path:
    """A server's file, as `serving.torchserve.launch` publishes it."""
    about: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "inference": "http://127.0.0.1:8080"}
    about |= {"management": "", "release": f"{store.name}/1", "digest": "", "time": time.time()}
    state = ServerState(**(about | changes))
    path = store.home / "servers" / f"{state.host}-{state.pid}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(state))
    return path


@pytest.fixture
def many(store: ModelStore) -> ModelStore:
    """Seven releases, of which 1 to 3 have an alias."""
    for version in range(4, 8):
        make_release(store, version)
    return store


def used(store: ModelStore, version: int) -> int:
    folder = store.home / str(version)
    return (
        sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) + store.archive(version).stat().st_size
    )


def test_delete_first_tells_then_does(many: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
    record(many.archive(5), "5" * 64)
    before = tree(many.root)
    size = used(many, 5) + digest_file(many.archive(5)).stat().st_size
    given = ["delete", "5", "--store", str(many.root), "--name", many.name]
    assert main(COMMAND, given) == 0
    assert f"{size / 1000:.1f} kB would come free" in capsys.readouterr().out
    assert tree(many.root) == before
    assert delete(many, "5").bytes == size
    assert main(COMMAND, [*given, "--yes"]) == 0
    assert f"{size / 1000:.1f} kB came free" in capsys.readouterr().out
    assert before - tree(many.root) == {
        *("small-5.mar", "small-5.mar.sha256", "small/5", "small/5/encoder.onnx", "small/5/manifest.json"),
        *("small/5/report", "small/5/report/loss.png"),
    }
    assert tree(many.root) <= before
    assert history.read(many.home)[-1]["from"] == 5


@pytest.mark.parametrize(("version", "why"), [(1, "the previous"), (2, "the champion"), (3, "the challenger")])
def test_what_an_alias_means_stays(many: ModelStore, version: int, why: str) -> None:
    with pytest.raises(StoreError, match=f"small/{version} stays: it is {why}"):
        delete(many, str(version), carry_out=True)
    assert faults_of(many, version) == []


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({}, True),
        ({"release": "small/6", "target": 4, "state": "rolling"}, True),
        ({"pid": 2**22 + 1}, False),  # above any process number
        ({"host": "elsewhere", "pid": 2**22 + 1}, True),
        ({"host": "elsewhere", "time": 0}, False),
        ({"time": 0}, True),  # its process is there
    ],
)
def test_what_a_living_server_serves_or_turns_to_stays(
    many: ModelStore, changes: dict[str, Any], *, lives: bool
) -> None:
    server_says(many, **({"release": "small/4"} | changes))
    if not lives:
        delete(many, "4", carry_out=True)
        assert 4 not in many.versions()
        return
    with pytest.raises(StoreError, match=r"small/4 stays: .* serves it"):
        delete(many, "4", carry_out=True)
    sweep = collect(many, keep=1, carry_out=True)
    assert 4 in many.versions()
    assert any(sentence.startswith("small/4 stays") for sentence in sweep.kept)


def test_nothing_goes_while_a_server_can_not_be_understood(many: ModelStore) -> None:
    path = server_says(many)
    path.write_text("{}")
    with pytest.raises(StoreError, match=rf"{path.name} can't be read .*: remove the file if it is gone"):
        collect(many, keep=1, carry_out=True)
    assert len(many.versions()) == 7


def test_collect_keeps_the_newest_and_the_needed(many: ModelStore) -> None:
    before = tree(many.root)
    expected = sum(used(many, version) for version in (4, 5))
    assert collect(many, keep=2).bytes == expected
    assert tree(many.root) == before
    collect(many, keep=2, carry_out=True)
    assert many.versions() == [1, 2, 3, 6, 7]
    assert sorted(path.name for path in many.root.glob("*.mar")) == [
        f"small-{version}.mar" for version in (1, 2, 3, 6, 7)
    ]
    with pytest.raises(StoreError, match="keep is 0"):
        collect(many, keep=0)


def test_collect_takes_what_killed_runs_left_and_nothing_of_others(many: ModelStore) -> None:
    make_release(ModelStore(many.root, "small-1"), 2)
    before = tree(many.root)
    shutil.copytree(many.home / "7", many.home / ".partial-8")
    shutil.copytree(many.home / "7", many.home / ".deleted-9-123")
    (many.root / ".archive-abc/content").mkdir(parents=True)
    left = ["small-9.mar", "small-9.mar.sha256", ".small-7.mar.partial", ".small-7.mar.sha256.partial"]
    for name in (*left, "small/aliases/.champion.partial"):
        (many.root / name).write_bytes(b"x" * 10)
    sweep = collect(many, keep=7, carry_out=True)
    assert tree(many.root) == before
    assert len(sweep.removals) == 8
    assert sweep.bytes > 30


def test_what_a_living_process_is_at_work_on_stays(many: ModelStore) -> None:
    shutil.copytree(many.home / "7", many.home / ".partial-8")
    (many.root / ".archive-abc").mkdir()
    with locked(many.home / PUBLISHING), locked(many.root / ARCHIVING, shared=True):
        sweep = collect(many, keep=7, carry_out=True)
    assert sweep.removals == ()
    assert [sentence.split(":")[0] for sentence in sweep.kept] == [
        "a release is being published just now",
        "an archive is being made just now",
    ]
    assert len(collect(many, keep=7, carry_out=True).removals) == 2


def test_a_parent_may_go_before_a_release_in_its_embedding_space(many: ModelStore) -> None:
    parent = many.release(4)
    child = make_release(many, 8, space=parent.digest, promotion=approved(many.release(2)))
    delete(many, "4", carry_out=True)
    assert faults_of(many, 8) == []
    promote(many, "8")
    assert many.release("champion").space == parent.digest == child.space


def test_killed_while_removing_nothing_is_half_a_release(many: ModelStore) -> None:
    cuts = many.root.parent / "cuts"
    command = [sys.executable, "-m", "tests.export.store.mover", "cut", str(many.root), str(cuts), "delete"]
    subprocess.run(command, cwd=ROOT, check=True)
    killed = sorted(cuts.iterdir())
    assert len(killed) >= 5
    for root in killed:
        left = ModelStore(root, many.name)
        assert {fault for version in left.versions() for fault in faults_of(left, version)} == set()
        collect(left, keep=7, carry_out=True)
        assert not [path for path in root.rglob(".*") if not path.name.endswith(".lock")]
        assert {int(path.stem.split("-")[1]) for path in root.glob("*.mar")} == set(left.versions())


def test_the_number_of_a_deleted_release_is_never_used_again(many: ModelStore) -> None:
    delete(many, "7", carry_out=True)
    delete(many, "6", carry_out=True)
    assert many.versions()[-1] == 5
    assert next_version(many.home) == 8


def test_the_end_says_what_to_type_next_and_in_json_what_was_removed(
    many: ModelStore, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["delete", "5", "--store", str(many.root), "--name", many.name]
    assert main(COMMAND, given) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"next: simclr releases delete 5 --yes --name {many.name} --store {many.root}"
    )
    assert main(COMMAND, [*given, "--yes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["done"]
    assert [one["what"] for one in found["removals"]] == ["release small/5"]
    assert main(COMMAND, ["promote", "3", "--store", str(many.root), "--name", many.name]) == 0
    assert f"next: simclr serve --name {many.name}" in capsys.readouterr().out
