"""Folders as people and machines leave them: links, loops, thumbnails and trash."""

import os
from pathlib import Path

import pytest

from core.images.folders import FolderSource
from core.images.walk import is_hidden


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def listed(folder: Path) -> list[str]:
    names = list(FolderSource(folder).names())
    assert names == sorted(names)
    assert set(names) <= set(FolderSource(folder).sizes())
    return names


def test_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool", "cats/1.png", "dogs/deep/2.png")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "cat").symlink_to(pool / "cats")
    (linked / "dog").symlink_to("../pool/dogs")
    assert listed(linked) == ["cat/1.png", "dog/deep/2.png"]
    assert FolderSource(linked).read("cat/1.png") == b""


def test_no_link_goes_round_and_each_that_is_left_out_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = write(tmp_path / "pool", "a/1.png", "b/2.png")
    root = write(tmp_path / "root", "own/3.png")
    for folder in (pool / "a", pool / "b", root / "own"):
        for number, target in enumerate((pool / "a", pool / "b", pool, root, root / "own", tmp_path)):
            (folder / f"link{number}").symlink_to(target)
    (root / "self").symlink_to("self")
    (root / "lost").symlink_to(tmp_path / "nowhere")
    names = listed(root)
    assert len(names) < 12
    assert {os.path.basename(name) for name in names} == {"1.png", "2.png", "3.png"}
    assert [name for name in names if name.endswith("3.png")] == ["own/3.png"]
    for reason in ("it holds the folder", "under its own name", "another link has led there", "leads nowhere"):
        assert reason in caplog.text


def test_a_store_that_is_hidden_is_reached_through_its_links(tmp_path: Path) -> None:
    root = write(tmp_path / "annex", ".git/objects/1.png")
    (root / "cat").symlink_to(".git/objects")
    assert listed(root) == ["cat/1.png"]


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/cat.png/SYNOPHOTO_THUMB_M.jpg",
        "cat/@eaDir/x.png",
        "#recycle/x.png",
        "@Recycle/x.png",
        ".@__thumb/s800x.png",
        "@__thumb/x.png",
        "$RECYCLE.BIN/S-1-5-21/$R0.png",
        "System Volume Information/x.png",
        "lost+found/1.png",
        ".Trash-1000/files/x.png",
        ".thumbnails/x.png",
        "__MACOSX/x.png",
        "._x.png",
        "Network Trash Folder/x.png",
        "SYNOPHOTO_THUMB_XL.jpg",
    ],
)
def test_thumbnails_and_trash_of_systems_are_no_images(tmp_path: Path, name: str) -> None:
    assert is_hidden(name)
    assert listed(write(tmp_path, "cat/x.png", name)) == ["cat/x.png"]


@pytest.mark.parametrize("name", ["recycle/x.png", "lost and found/x.png", "cat@home.png", "#1/x.png", "thumbs/x.png"])
def test_what_people_name_is_not_hidden(name: str) -> None:
    assert not is_hidden(name)
