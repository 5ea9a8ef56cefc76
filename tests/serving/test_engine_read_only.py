"""A collection that can only be read: reads go on, writes say why, and once it can be written to they work."""

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME
from serving.collection.errors import CatalogueReadOnly
from serving.collection.index.faiss.compaction import Policy
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.operations.keeping import Keeper
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import (
    CountRequest,
    DeleteRequest,
    DescribeRequest,
    DuplicatesRequest,
    GetRequest,
    ListRequest,
    NewItem,
    RemoveSnapshotRequest,
    Request,
    SearchRequest,
    SnapshotRequest,
    SnapshotsRequest,
    StatsRequest,
    UpsertRequest,
)
from tests.conftest import Chain
from tests.disks import no_permission, read_only_mount
from tests.serving.collection.examples import unit_vectors

OPTIONS = EngineOptions(form="onnx")
READ_ONLY: dict[str, Callable[[Path], AbstractContextManager[Path]]] = {
    "mount": lambda folder: read_only_mount(folder, folder.with_name("mounted")),
    "permission": no_permission,
}


@pytest.fixture(params=READ_ONLY)
def read_only(request: pytest.FixtureRequest) -> Callable[[Path], AbstractContextManager[Path]]:
    return READ_ONLY[request.param]


@pytest.fixture
def folder(chain: Chain) -> Iterator[Path]:
    """A copy of the chain's collection where another user may read it: pytest's own folders are closed to others."""
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        copy = Path(shutil.copytree(chain.collection, Path(top, "collection")))
        shutil.copytree(chain.release.folder, Path(top, "release"))
        assert pictures(chain)
        open_catalogue(copy).close()  # so that no log is left, which servers of other tests may have just now
        (copy / "snapshots").mkdir()
        (copy / "snapshots/kept.json").write_text("{}")
        yield copy


@functools.lru_cache
def _pictures(images: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(images.rglob("*.jpg"))[:3]]


def pictures(chain: Chain) -> list[bytes]:
    """Some that the collection has not, read before we become another user."""
    return _pictures(chain.collection.with_name("images") / "test")


def reads(chain: Chain, stored: str) -> list[Request]:
    found = SearchRequest(images=(pictures(chain)[0],), ids=(stored,), k=3)
    looked_at: list[Request] = [GetRequest((stored,)), ListRequest(limit=3), CountRequest(), DuplicatesRequest(limit=3)]
    return [found, *looked_at, StatsRequest(), DescribeRequest(), SnapshotsRequest()]


def writes(chain: Chain, stored: str) -> list[Request]:
    upsert = UpsertRequest(items=(NewItem("new", pictures(chain)[0]),))
    return [upsert, DeleteRequest(ids=(stored,)), SnapshotRequest(name="now"), RemoveSnapshotRequest(name="kept")]


def check_read_only(engine: Engine, chain: Chain, stored: str) -> None:
    for request in reads(chain, stored):
        (answer,) = engine.answer([request])
        assert isinstance(answer, Answer), (request, answer)
    for request in writes(chain, stored):
        (answer,) = engine.answer([request])
        assert isinstance(answer, RequestError), (request, answer)
        assert (answer.status, "read-only" in str(answer)) == (403, True), (request, answer)


def closed(engine: Engine) -> None:
    assert engine.collection is not None
    engine.collection.index.close()
    engine.collection.catalogue.close()


@pytest.mark.parametrize("left", ["nothing", "log and index", "log"])
def test_reads_go_on_and_writes_say_why(
    chain: Chain, folder: Path, read_only: Callable[[Path], AbstractContextManager[Path]], left: str
) -> None:
    """Whatever the last process that wrote left beside the catalogue."""
    catalogue = open_catalogue(folder)
    stored, whole = catalogue.items.page(limit=1).items[0].id, catalogue.items.count()
    if left != "nothing":  # as a process that was killed leaves it
        catalogue.delete([catalogue.items.page(limit=2).items[1].id])
        crashed = shutil.copytree(folder, folder.with_name("crashed"))
        folder = Path(crashed)
    catalogue.close()
    if left == "log":
        (folder / f"{FILE_NAME}-shm").unlink()
    count = whole if left == "nothing" else whole - 1
    with read_only(folder) as place:
        engine = Engine.open(folder.with_name("release"), place, options=OPTIONS)
        keeper = Keeper(engine.collection, Policy(least=0, share=0.0)) if engine.collection is not None else None
        check_read_only(engine, chain, stored)
        (answer,) = engine.answer([CountRequest()])
        assert isinstance(answer, Answer)
        assert answer.more["count"] == count
        assert keeper is not None
        keeper.stop()
        closed(engine)


def test_once_it_is_writable_writes_are_made_and_read(chain: Chain, folder: Path) -> None:
    with no_permission(folder):
        engine = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
        catalogue = open_catalogue(folder)
        stored = catalogue.items.page(limit=1).items[0].id
        catalogue.close()  # connections of one process share what SQLite knows of a file
        check_read_only(engine, chain, stored)
        reader = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
    (upserted, deleted) = engine.answer(writes(chain, stored)[:2])
    assert isinstance(upserted, Answer)
    assert isinstance(deleted, Answer)
    for one in (engine, reader):  # the second has only read, of a file that it took for constant
        (answer,) = one.answer([GetRequest(("new", stored))])
        assert isinstance(answer, Answer)
        assert [isinstance(result, RequestError) for result in answer.results] == [False, True]
        closed(one)


def test_what_is_written_elsewhere_is_read_through_a_read_only_mount(chain: Chain, folder: Path) -> None:
    with read_only_mount(folder, folder.with_name("mounted")) as place:
        reader = Engine.open(folder.with_name("release"), place, options=OPTIONS)
        writer = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
        for number in range(3):
            (written,) = writer.answer([UpsertRequest(items=(NewItem(f"new{number}", pictures(chain)[number]),))])
            assert isinstance(written, Answer)
            (found,) = reader.answer([SearchRequest(images=(pictures(chain)[number],), k=1)])
            assert isinstance(found, Answer)
            assert found.results[0]["neighbours"][0]["id"] == f"new{number}"
            if number == 1:
                closed(writer)
                writer = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
        closed(reader)
        closed(writer)


def test_a_collection_that_lacks_the_space_can_be_read(chain: Chain, folder: Path) -> None:
    catalogue = open_catalogue(folder)
    catalogue.spaces.close(chain.release.space)
    catalogue.close()
    with no_permission(folder):
        engine = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
        (listed, found) = engine.answer([ListRequest(limit=3), SearchRequest(images=(pictures(chain)[0],), k=1)])
        assert isinstance(listed, Answer)
        assert isinstance(found, Answer)
        assert engine.collection is not None
        engine.collection.refresh()
    engine.collection.refresh()  # as the keeper does every second
    space = engine.collection.catalogue.spaces.get(chain.release.space)
    assert space is not None
    assert space.pending > 0
    closed(engine)


def test_an_item_that_waits_holds_up_no_search(chain: Chain, folder: Path) -> None:
    catalogue = open_catalogue(folder)
    picture = pictures(chain)[0]
    catalogue.upsert([Item("waits", Source.kept(picture))], unit_vectors(1, 512), "0" * 64)
    assert catalogue.spaces.behind(chain.release.space)
    catalogue.close()
    with no_permission(folder):
        engine = Engine.open(folder.with_name("release"), folder, options=OPTIONS)
        for _ in range(2):
            (found,) = engine.answer([SearchRequest(images=(picture,), k=1)])
            assert isinstance(found, Answer)
            assert found.results[0]["neighbours"][0]["id"] != "waits"
        closed(engine)


def test_a_folder_that_can_not_be_made_is_an_error_that_says_so(folder: Path) -> None:
    with no_permission(folder), pytest.raises(CatalogueReadOnly, match="can't be made"):
        open_catalogue(folder / "new", create=True)
