"""Folders and zips: which files are images, in which order, and what can't be read."""

import os
import zipfile
from pathlib import Path

import pytest

from core.images.folders import FolderSource, UnreadableFile, ZipSource, is_image, open_source

NAMES = ["b/c.png", "a/b.jpg", "a.b/c.JPG", "a.jpg", "a/b/c.webp", "Z.png", "ü.png"]
OTHERS = ["notes.txt", ".hidden.png", ".git/a.png", "__MACOSX/a.png", "a/.b.png", "jpg"]


def write(folder: Path) -> Path:
    for name in NAMES + OTHERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_names_are_those_of_sizes_that_are_images_sorted(tmp_path: Path) -> None:
    folder = write(tmp_path / "images")
    (folder / "nowhere.png").symlink_to(folder / "gone")
    (folder / "linked.png").symlink_to(folder / "a.jpg")
    (folder / "folder.png").symlink_to(folder / "a")
    (folder / "a/around").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    expected = sorted(name for name in FolderSource(folder).sizes() if is_image(name))
    assert list(FolderSource(folder).names()) == expected
    assert set(expected) == {*NAMES, "nowhere.png", "linked.png"}


def test_a_name_that_is_not_utf8_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "good.png").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.png")).write_bytes(b"")
    os.mkdir(os.fsencode(tmp_path) + b"/odd\xff")
    assert list(FolderSource(tmp_path).names()) == ["good.png"]
    assert caplog.text.count("its name is not UTF-8") == 2


def test_a_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = write(tmp_path / "images")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in NAMES + OTHERS:
            archive.write(folder / name, name)
    found = open_source(tmp_path / "images.zip")
    assert isinstance(found, ZipSource)
    assert list(found.names()) == list(FolderSource(folder).names())
    assert [found.read(name) for name in NAMES] == [name.encode() for name in NAMES]


@pytest.mark.parametrize("name", ["a", "pipe.png", "gone.png"])
def test_what_is_no_file_is_unreadable_and_never_waited_for(tmp_path: Path, name: str) -> None:
    write(tmp_path / "images")
    os.mkfifo(tmp_path / "images/pipe.png")
    with pytest.raises(UnreadableFile, match=r"is no file|No such file"):
        FolderSource(tmp_path / "images").read(name)
