"""Pruning removes what was positively seen to be gone, and nothing else."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.command_line.command import main
from core.releases.manifest import Release
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.engine import Engine
from serving.jobs.ingest.command import COMMAND
from serving.jobs.ingest.into_folder import ingest
from serving.jobs.ingest.pruning import Fate, Fates
from serving.jobs.ingest.sources import image_files
from tests.serving.jobs.conftest import write_images

NAMES = [f"{folder}/{number}.png" for folder in ("left", "right", "far/away") for number in range(3)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", NAMES)


@pytest.fixture
def catalogue(small_engine: Engine, images: Path, tmp_path: Path) -> Catalogue:
    """A collection of the images."""
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    ingest(small_engine, catalogue, image_files(images))
    return catalogue


def pruned(engine: Engine, catalogue: Catalogue, images: Path) -> tuple[int, int, int]:
    """How many items were removed, could not be looked for, and are left."""
    done = ingest(engine, catalogue, image_files(images))
    return done.removed, len(done.unseen), catalogue.items.count()


def test_what_has_gone_goes(small_engine: Engine, catalogue: Catalogue, images: Path) -> None:
    (images / "left/0.png").unlink()
    shutil.rmtree(images / "far")
    assert pruned(small_engine, catalogue, images) == (4, 0, 5)


def test_a_folder_that_is_empty_may_be_a_disk_that_is_not_mounted(
    small_engine: Engine, catalogue: Catalogue, images: Path
) -> None:
    shutil.rmtree(images / "far/away")
    (images / "right/0.png").unlink()
    assert pruned(small_engine, catalogue, images) == (1, 3, 8)


@pytest.mark.parametrize("leads_to", ["nowhere", "itself", "empty", "images/left"])
def test_a_folder_that_became_a_link_keeps_its_items(
    small_engine: Engine, catalogue: Catalogue, images: Path, leads_to: str
) -> None:
    shutil.rmtree(images / "right")
    (images.parent / "empty").mkdir()
    (images / "right").symlink_to("right" if leads_to == "itself" else images.parent / leads_to)
    removed, _, count = pruned(small_engine, catalogue, images)
    assert (removed, count) == (0, 9)


def test_a_folder_that_can_not_be_listed_keeps_its_items(
    small_engine: Engine, catalogue: Catalogue, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(list_folder: Callable[[str], Any]) -> Callable[[str], Any]:
        def listed(path: str) -> Any:  # root may list every folder
            if str(path).endswith("right"):
                raise PermissionError(13, "Permission denied", str(path))
            return list_folder(path)

        return listed

    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    assert pruned(small_engine, catalogue, images) == (0, 3, 9)


def test_what_other_ingestions_brought_stays(small_engine: Engine, catalogue: Catalogue, images: Path) -> None:
    """A folder inside, another prefix, an archive inside, also with the place as an earlier version wrote it."""
    ingest(small_engine, catalogue, image_files(images / "left", prefix="sub/"), remove_gone=False)
    ingest(small_engine, catalogue, image_files(images, prefix="other/"), remove_gone=False)
    archive = Path(shutil.make_archive(str(images / "packed"), "zip", images / "left"))
    ingest(small_engine, catalogue, image_files(archive, prefix="zip/"), remove_gone=False)
    before = catalogue.items.count()
    stored = catalogue.items.get("zip/0.png")
    assert stored is not None
    earlier = Item("earlier", Source(stored.source.sha256, 1, path=f"{archive}!0.png"))
    catalogue.upsert(
        [earlier], catalogue.vectors.of(["zip/0.png"], small_engine.space)["zip/0.png"][None], small_engine.space
    )
    assert pruned(small_engine, catalogue, images) == (0, 0, before + 1)


def test_a_zip_in_a_zip_s_place_prunes_what_it_lacks(small_engine: Engine, images: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "wow!"), "zip", images))
    catalogue = open_catalogue(tmp_path / "of zip", create=True)
    ingest(small_engine, catalogue, image_files(archive))
    shutil.rmtree(images / "far")
    archive.unlink()
    with zipfile.ZipFile(archive, "w") as packed:
        for name in NAMES[:6]:
            packed.write(images / name, name)
    assert pruned(small_engine, catalogue, archive) == (3, 0, 6)
    fates = Fates(image_files(archive).source)
    assert [fates.of(f"{archive}!{name}") for name in (NAMES[0], NAMES[8])] == [Fate.THERE, Fate.GONE]


def test_the_exit_code_says_that_items_were_kept(
    matrix: Release, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(images), "--collection", str(tmp_path / "c"), "--release", str(matrix.folder), "--prune"]
    assert main(COMMAND, given) == 0
    shutil.rmtree(images / "right")
    (images / "right").mkdir()
    assert main(COMMAND, given) == 3
    assert "not removed: 3 items, as the folders" in capsys.readouterr().err
    (images / "right").rmdir()
    assert main(COMMAND, given) == 0
    assert "3 removed" in capsys.readouterr().out


def test_nothing_but_broken_files_is_a_failure(
    matrix: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.png").write_bytes(b"no image")
    given = [str(tmp_path / "images"), "--collection", str(tmp_path / "c"), "--release", str(matrix.folder)]
    assert main(COMMAND, given) == 1
    assert "error: none of the 3 images of" in capsys.readouterr().err
