"""A file that is gone is told from one whose whole ingestion is out of reach, whatever the ids begin with."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from core.images.folders import UnreachableFile, UnreadableFile
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.spaces import Pending
from serving.collection.pictures.pending import PendingSources, Picture


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An ingested folder with one file left, one that is empty, an archive, and a collection."""
    open_catalogue(tmp_path / "collection", create=True)
    for name in ("photos/2020", "mount"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "photos/left.png").write_bytes(b"bytes")
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("2020/left.png", b"bytes")
    return tmp_path


def read(site: Path, name: str, path: str) -> Picture:
    sources = PendingSources(open_catalogue(site / "collection"))
    return sources.read(Pending(1, name, hashlib.sha256(b"bytes").digest(), f"{site}/{path}", 1))


@pytest.mark.parametrize("path", ["photos/left.png", "some.zip!2020/left.png"])
def test_what_is_there_is_read(site: Path, path: str) -> None:
    assert read(site, "any", path).content == b"bytes"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("2020/a.png", "photos/2020/a.png"),  # of a folder that was emptied, and is not all of the ingestion
        ("cam-2021/a.png", "photos/2021/a.png"),
        ("any", "photos/a.png"),
        ("2020/a.png", "some.zip!2020/a.png"),
        ("any", "some.zip!2020/a.png"),
    ],
)
def test_a_file_alone_that_is_gone_is_gone(site: Path, name: str, path: str) -> None:
    with pytest.raises(UnreadableFile) as raised:
        read(site, name, path)
    assert not isinstance(raised.value, UnreachableFile)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("2020/a.png", "mount/2020/a.png"),
        ("cam-2020/a.png", "mount/2020/a.png"),
        ("any", "mount/a.png"),
        ("2020/a.png", "nowhere/2020/a.png"),
        ("2020/a.png", "gone.zip!2020/a.png"),
        ("any", "nowhere/some.zip!2020/a.png"),
    ],
)
def test_what_is_missing_with_all_that_it_came_with_is_out_of_reach(site: Path, name: str, path: str) -> None:
    with pytest.raises(UnreachableFile, match="is empty or missing; is it mounted"):
        read(site, name, path)
