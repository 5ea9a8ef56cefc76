"""What can't be read for good is told from what can't be read now, by errors of the real system."""

import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.images.folders import FolderSource, UnreachableFile, UnreadableFile
from serving.collection.pictures.stored import StoredFiles

FAILING = Path("/proc/self/mem")  # a file whose first byte can't be read: EIO, as of a bad disk


@contextmanager
def no_file_to_spare() -> Iterator[None]:
    """No further file can be opened: EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file, an archive, a link to itself, a file that is no archive, and one that the disk does not give."""
    (tmp_path / "a.png").write_bytes(b"bytes")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("in/b.png", b"bytes")
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "some.zip").read_bytes()[:40])
    (tmp_path / "bad.png").symlink_to(FAILING)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    ["gone.png", "a.png/b.png", "round.png", "some.zip!gone.png", "cut.zip!b.png", "gone.zip!b.png", "a" * 999, "\0"],
)
def test_what_the_file_is_stays_so(folder: Path, path: str) -> None:
    with pytest.raises(UnreadableFile) as raised:
        StoredFiles().read(str(folder / path))
    assert not isinstance(raised.value, UnreachableFile)


def test_what_the_disk_does_not_give_may_be_there_later(folder: Path) -> None:
    with pytest.raises(UnreachableFile):
        StoredFiles().read(str(folder / "bad.png"))


@pytest.mark.parametrize("path", ["a.png", "some.zip!in/b.png"])
def test_what_the_process_has_no_room_for_may_be_read_later(folder: Path, path: str) -> None:
    with no_file_to_spare(), pytest.raises(UnreachableFile, match="Too many open files"):
        StoredFiles().read(str(folder / path))
    assert StoredFiles().read(str(folder / path)) == b"bytes"


def test_it_is_unreadable_to_who_does_not_come_again(folder: Path) -> None:
    with pytest.raises(UnreadableFile):
        FolderSource(folder).read("bad.png")
