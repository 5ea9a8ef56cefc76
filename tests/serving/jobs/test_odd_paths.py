"""Whatever characters a path holds, a picture ingested from there is read at every later stage."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

from core.releases.manifest import Release
from retraining.frozen import prepare_frozen
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.engine import Engine
from serving.jobs.bulk.sources import SourceFiles, named
from serving.jobs.ingest.into_folder import ingest
from serving.jobs.ingest.sources import image_files
from serving.jobs.parallel.tasks import Task
from serving.jobs.reembed.reembed import Assignment, reembed
from serving.operations.pictures import picture_of
from tests.serving.jobs.conftest import write_images, write_release

FOLDER = "wow! 50%?#&=;:'\"\\ \tü\n!x.zip!y"
NAMES = ["plain.png", "in!/x!.png", "a.zip!b.png", "per%20cent#?.png", "back\\slash.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / FOLDER / "images!", NAMES)


@pytest.fixture
def archive(images: Path) -> Path:
    path = images.parent / "pa!cked.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for name in NAMES:
            packed.write(images / name, name)
    return path


@pytest.fixture
def catalogue(small_engine: Engine, images: Path, archive: Path, tmp_path: Path) -> Catalogue:
    """The images twice: from their folder and from an archive."""
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    for path, prefix in ((images, "folder/"), (archive, "zip/")):
        assert not ingest(small_engine, catalogue, image_files(path, prefix=prefix)).left_out
    return catalogue


def assert_readable(catalogue: Catalogue, images: Path) -> None:
    for prefix in ("folder/", "zip/"):
        for name in NAMES:
            item = catalogue.items.get(prefix + name, content=True)
            assert item is not None
            assert picture_of(item).content == (images / name).read_bytes()


def test_get_and_snapshot(catalogue: Catalogue, images: Path, tmp_path: Path) -> None:
    assert_readable(catalogue, images)
    catalogue.snapshots.save(tmp_path / "snapshot")
    restored = open_catalogue(tmp_path / "restored", create=True)
    restored.snapshots.restore(tmp_path / "snapshot")
    assert_readable(restored, images)


def test_reembed(catalogue: Catalogue, tmp_path: Path) -> None:
    release = Release(write_release(tmp_path / "store/matrix/2", version=2).folder)
    catalogue.spaces.open(release.space)
    reembed(catalogue, Assignment(release, Task(0, 1), processes=1))
    assert catalogue.spaces.failures(release.space, limit=99) == {}
    assert len(catalogue.vectors.census(release.space).rows) == 2 * len(NAMES)


def test_freeze(catalogue: Catalogue, tmp_path: Path) -> None:
    data = prepare_frozen(catalogue.folder, tmp_path / "data")
    assert (len(data), data.facts["unreadable"]) == (2 * len(NAMES), [])


def test_bulk(images: Path, archive: Path) -> None:
    for path in (images, archive):
        [source] = named([str(path)])
        files = SourceFiles(source)
        assert [files.read(name)[1] for name in files.names()] == [
            (images / name).read_bytes() for name in sorted(NAMES)
        ]


def test_a_zip_in_the_place_of_a_zip(catalogue: Catalogue, small_engine: Engine, images: Path, archive: Path) -> None:
    write_images(images, ["other.png", *NAMES])  # no picture as before
    with zipfile.ZipFile(archive, "w") as packed:
        for name in NAMES:
            packed.write(images / name, name)
    for path, prefix in ((images, "folder/"), (archive, "zip/")):
        assert ingest(small_engine, catalogue, image_files(path, prefix=prefix)).stored >= len(NAMES)
    assert_readable(catalogue, images)


def test_items_that_an_earlier_version_stored_are_read(
    catalogue: Catalogue, small_engine: Engine, images: Path, archive: Path
) -> None:
    contents = {name: (images / name).read_bytes() for name in NAMES}
    earlier = [
        Item(f"zip/{name}", Source(hashlib.sha256(content).digest(), len(content), path=f"{archive}!{name}"))
        for name, content in contents.items()
    ]
    vectors = catalogue.vectors.of([item.id for item in earlier], small_engine.space)
    catalogue.upsert(earlier, np.stack([vectors[item.id] for item in earlier]), small_engine.space)
    assert_readable(catalogue, images)
    done = ingest(small_engine, catalogue, image_files(archive, prefix="zip/"))
    assert (done.unchanged, done.removed) == (len(NAMES), 0)
    stored = catalogue.items.get("zip/in!/x!.png")
    assert stored is not None
    assert stored.source.path == f"{archive}//in!/x!.png"
