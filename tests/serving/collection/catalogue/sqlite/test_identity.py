"""A catalogue that was deleted or replaced while it is open, and one of which only the index is left."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME
from serving.collection.errors import CatalogueError, CatalogueGone
from serving.collection.index.faiss.compaction import compact
from serving.collection.snapshots.named import NamedSnapshots
from tests.serving.collection.examples import RELEASE, fill, unit_vectors


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def rename_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


GONE: dict[str, Callable[[Path], None]] = {
    "deleted": Path.unlink,
    "log deleted": lambda path: path.with_name(f"{FILE_NAME}-wal").unlink(),
    "log replaced": lambda path: replace_by_a_copy(path.with_name(f"{FILE_NAME}-wal")),
    "replaced": replace_by_a_copy,
    "folder deleted": lambda path: shutil.rmtree(path.parent),
    "folder moved": rename_folder,
}


@pytest.mark.parametrize("how", GONE)
def test_nothing_is_acknowledged_once_the_file_is_gone(tmp_path: Path, how: str) -> None:
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    fill(catalogue, unit_vectors(3))
    GONE[how](catalogue.folder / FILE_NAME)
    for attempt in (
        lambda: fill(catalogue, unit_vectors(3), prefix="late"),
        lambda: catalogue.delete(["n1"]),
        catalogue.items.count,
        lambda: catalogue.spaces.open(RELEASE),
    ):
        with pytest.raises(CatalogueGone, match="was deleted or replaced while it was open"):
            attempt()
    with ThreadPoolExecutor(1) as another, pytest.raises(CatalogueError):  # a thread that opens it only now
        another.submit(fill, catalogue, unit_vectors(3)).result()


def test_a_file_that_goes_during_a_write_makes_it_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(3))
    path = "serving.collection.catalogue.sqlite.catalogue.next_sequence"

    def unlink_first(db: object) -> int:
        (tmp_path / FILE_NAME).unlink()
        return 2

    monkeypatch.setattr(path, unlink_first)
    with pytest.raises(CatalogueGone):
        catalogue.delete(["n1"])


def test_a_folder_that_was_moved_away_and_back_is_the_same(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path / "collection", create=True)
    fill(catalogue, unit_vectors(3))
    rename_folder(catalogue.folder / FILE_NAME)
    with pytest.raises(CatalogueGone):
        catalogue.items.count()
    (tmp_path / "elsewhere").rename(catalogue.folder)
    assert catalogue.delete(["n1"]).count == 1


@pytest.mark.parametrize("left", ["index", "snapshot", "log"])
@pytest.mark.parametrize("state", ["empty", "missing"])
def test_an_empty_catalogue_beside_what_is_left_of_another_is_no_empty_collection(
    tmp_path: Path, left: str, state: str
) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    fill(catalogue, unit_vectors(30))
    if left == "index":
        assert compact(catalogue, RELEASE)
    if left == "snapshot":
        NamedSnapshots(tmp_path).save(catalogue, "monday")
    catalogue.close()
    path = tmp_path / FILE_NAME
    path.unlink()
    if left == "log":
        path.with_name(f"{FILE_NAME}-wal").write_bytes(b"writes")
    if state == "empty":
        path.touch()
    for create in (True, False):
        with pytest.raises(CatalogueError, match=r"is (missing, though|empty, though|no collection)"):
            open_catalogue(tmp_path, create=create)
    assert path.exists() == (state == "empty")
    if state == "empty":
        assert path.stat().st_size == 0


def test_an_empty_file_alone_becomes_a_collection(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    fill(open_catalogue(tmp_path, create=True), unit_vectors(3))


def test_another_programs_tables_are_left_alone(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / FILE_NAME))
    db.execute("CREATE TABLE bookmarks(address)")
    db.close()
    with pytest.raises(CatalogueError, match="has schema 0"):
        open_catalogue(tmp_path, create=True)
