"""On a disk that is really full items can be deleted, also in a batch whose upserts do not fit; and that makes room."""

import os
from pathlib import Path

from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite import spare_room
from serving.collection.catalogue.writes import Delete, Deleted, Upsert, Upserted
from serving.collection.errors import CatalogueFull
from tests.disks import no_permission, small_disk
from tests.serving.collection.examples import RELEASE, unit_vectors

VECTOR = unit_vectors(1, 8)
LARGE = 400_000  # bytes of a picture: some hundred of them fill the disk


def upsert(name: str) -> Upsert:
    return Upsert([Item(name, Source.kept(os.urandom(LARGE)))], VECTOR, RELEASE)


def take_the_rest(path: Path) -> None:
    """What others write to the same disk, to its last byte."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(handle, bytes(4096))
    except OSError:
        os.close(handle)


def test_items_can_be_deleted_from_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 40_000_000) as disk:
        catalogue = open_catalogue(disk / "collection", create=True)
        stored: list[str] = []
        while not isinstance(
            catalogue.write_many([upsert(name := f"i{len(stored)}"), Delete(["none"])])[0], CatalogueFull
        ):
            stored.append(name)
            assert len(stored) < 200
        take_the_rest(disk / "others")
        answers = [catalogue.write_many([upsert("new"), Delete([name]), upsert("newer")]) for name in stored]
        for upserted, deleted, _ in answers:
            assert isinstance(upserted, Upserted | CatalogueFull)
            assert isinstance(deleted, Deleted)
            assert deleted.count == 1
        assert isinstance(answers[0][0], CatalogueFull)
        assert [isinstance(written, Upserted) for written in answers[-1]] == [True, False, True], "there is room again"
        assert (disk / "collection" / spare_room.NAME).stat().st_size > 0, "and for the next time"
        assert catalogue.items.count() == 2
        catalogue.close()


def test_a_folder_that_can_not_be_written_to_has_no_room_to_set_aside(tmp_path: Path) -> None:
    with no_permission(tmp_path):
        spare_room.set_aside(tmp_path)
        assert not spare_room.give_up(tmp_path)
