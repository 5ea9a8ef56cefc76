"""Files are made for their owner alone, unless SIMCLR_UMASK says otherwise."""

import os
import stat
from pathlib import Path

import pytest

from core.command_line.command import Command, main
from core.files.durable import publish_text
from core.files.locks import open_lock_file
from core.files.permissions import VARIABLE, file_mask
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.index.faiss.compaction import under_way
from serving.collection.snapshots.jobs import Jobs
from serving.collection.snapshots.named import NamedSnapshots
from tests.serving.collection.examples import fill, unit_vectors


def make(folder: Path) -> int:
    (folder / "store/aliases").mkdir(parents=True)
    publish_text(folder / "store/aliases/champion", "1\n")
    os.close(open_lock_file(folder / "store/.lock"))
    return 0


def modes(root: Path) -> set[tuple[bool, int]]:
    return {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (root / "store").rglob("*")}


@pytest.mark.parametrize(
    ("given", "folders", "texts", "locks"),
    [(None, 0o700, 0o600, 0o600), ("007", 0o770, 0o660, 0o660), ("022", 0o755, 0o644, 0o644)],
)
def test_what_a_command_makes_is_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, folders: int, texts: int, locks: int
) -> None:
    if given is not None:
        monkeypatch.setenv(VARIABLE, given)
    before = os.umask(0o022)
    try:
        command = Command("try", "Make files.", lambda parser: None, lambda _: make(tmp_path))
        assert main(command, []) == 0
        assert os.umask(0o022) == 0o022, "the caller's is as it was"
    finally:
        os.umask(before)
    assert modes(tmp_path) == {(True, folders), (False, texts), (False, locks)}


@pytest.mark.parametrize(("given", "folders", "files"), [(None, 0o700, 0o600), ("007", 0o770, 0o660)])
def test_a_collection_is_its_owners_whoever_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, folders: int, files: int
) -> None:
    """Also a program that never heard of us, with the usual umask."""
    if given is not None:
        monkeypatch.setenv(VARIABLE, given)
    before = os.umask(0o022)
    try:
        catalogue = open_catalogue(tmp_path / "store", create=True)
        fill(catalogue, unit_vectors(3))
        with Jobs(tmp_path / "store").alone():
            NamedSnapshots(tmp_path / "store").save(catalogue, "now")
        catalogue.snapshots.save(tmp_path / "store/file.sqlite")
        assert not under_way(tmp_path / "store")
        made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "store").rglob("*")}
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == made.pop("snapshots") == folders
    assert {"catalogue.sqlite", "catalogue.sqlite-wal", "catalogue.sqlite-shm", ".lock", "file.sqlite"} <= set(made)
    del made["now.json"]  # lies in a folder that is closed
    assert made["catalogue.sqlite"] == made["catalogue.sqlite-wal"] == made["catalogue.sqlite-shm"] == files
    assert {mode & ~files for mode in made.values()} == {0}


@pytest.mark.parametrize("given", ["x", "77777", "700", "-1"])
def test_a_mask_that_is_none_is_refused(
    given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="must be an octal umask"):
        file_mask({VARIABLE: given})
    monkeypatch.setenv(VARIABLE, given)
    assert main(Command("try", "Nothing.", lambda parser: None, lambda _: 0), []) == 1
    assert "SIMCLR_UMASK is" in capsys.readouterr().err
