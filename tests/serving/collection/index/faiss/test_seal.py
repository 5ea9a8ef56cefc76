import os
import shutil
import sys
from pathlib import Path

import pytest

from core.files.durable import sha256_of
from serving.collection.errors import IndexUnusable
from serving.collection.index.faiss.base_files import BaseFiles
from serving.collection.index.faiss.mapped_base import open_base
from serving.collection.index.faiss.seal import is_whole
from tests.serving.collection.examples import DAMAGE
from tests.serving.collection.index.faiss.test_mapped_base import published


def sealed(files: list[Path], digests: list[str], seal: Path) -> None:
    """Files are sealed once they are old enough for a change to show."""
    while not seal.exists():
        assert is_whole(files, digests, seal=seal)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.write_bytes(os.urandom(1000))
    return paths


_opened: list[str] = []
sys.addaudithook(lambda event, given: _opened.append(str(given[0])) if event == "open" else None)


def test_what_is_sealed_is_not_read_again(files: list[Path]) -> None:
    digests, seal = [sha256_of(path) for path in files], files[0].with_name("seal")
    sealed(files, digests, seal)
    _opened.clear()
    assert is_whole(files, digests, seal=seal)
    assert _opened == [str(seal)]
    seal.write_text("[not JSON")
    assert is_whole(files, digests, seal=seal)
    assert [name for name in _opened if name in map(str, files)] == [*map(str, reversed(files))]


def test_a_change_shows_however_small_and_whatever_the_times_say(files: list[Path]) -> None:
    digests, seal = [sha256_of(path) for path in files], files[0].with_name("seal")
    sealed(files, digests, seal)
    state = files[1].stat()
    content = bytearray(files[1].read_bytes())
    content[500] ^= 1
    files[1].write_bytes(content)
    os.utime(files[1], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert files[1].stat().st_mtime_ns == state.st_mtime_ns
    assert not is_whole(files, digests, seal=seal)
    content[500] ^= 1
    files[1].write_bytes(content)
    assert is_whole(files, digests, seal=seal)
    assert not is_whole(files, [digests[0], "0" * 64], seal=seal)


def test_a_file_that_was_just_written_is_not_sealed(tmp_path: Path) -> None:
    """Within one tick of the kernel's clock another write would leave all times as they are."""
    path, seal = tmp_path / "one", tmp_path / "seal"
    path.write_bytes(b"whole")
    os.utime(path, (0, 0))  # makes ctime now
    assert is_whole([path], [sha256_of(path)], seal=seal)
    assert not seal.exists()


def test_a_seal_that_can_not_be_written_is_told_and_does_no_harm(
    files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    digests, seal = [sha256_of(path) for path in files], files[0].with_name("folder") / "seal"
    while not caplog.records:
        assert is_whole(files, digests, seal=seal)
    assert "the next start hashes the base again" in caplog.text


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("part", ["index", "rows"])
def test_a_base_that_was_sealed_and_then_damaged_is_refused(tmp_path: Path, damage: str, part: str) -> None:
    record = published(tmp_path)
    files = BaseFiles(tmp_path / record.file)
    while not files.seal.exists():
        open_base(tmp_path, record)
    DAMAGE[damage](getattr(files, part))
    with pytest.raises(IndexUnusable, match=r"one\.faiss (is missing|was altered or torn): compact the collection"):
        open_base(tmp_path, record)


def test_a_copy_of_a_sealed_base_is_read_in_full_once(tmp_path: Path) -> None:
    there, copied = tmp_path / "there", tmp_path / "copied"
    there.mkdir()
    record = published(there)
    seal = BaseFiles(there / record.file).seal
    while not seal.exists():
        open_base(there, record)
    shutil.copytree(there, copied)
    before = BaseFiles(copied / record.file).seal.read_text()
    while BaseFiles(copied / record.file).seal.read_text() == before:
        open_base(copied, record)
