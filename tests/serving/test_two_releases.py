"""Two releases over one collection: what a worker of one acknowledged, a search through the other finds at once.

The matrix releases stand for encoders, as in the tests of bulk embedding: real files in the real runtime.
"""

import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.images.decode import decode
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.spaces import Pending
from serving.collection.pictures.pending import PendingSources, Picture
from serving.engine import Engine
from serving.operations.keeping import Keeper
from serving.operations.opened import OpenCollection
from serving.protocol.messages import Answer
from serving.protocol.operations import (
    DeleteRequest,
    GetRequest,
    NewItem,
    Request,
    SearchRequest,
    StatsRequest,
    UpsertRequest,
)
from tests.serving.jobs.conftest import SIZE, write_images, write_release

COUNT = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = write_images(tmp_path_factory.mktemp("images"), [f"{number:02d}.png" for number in range(2 * COUNT)])
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    store = tmp_path_factory.mktemp("store")
    first, second = (write_release(store / str(version), version=version) for version in (1, 2))
    return first.folder, second.folder


@pytest.fixture
def engines(releases: tuple[Path, Path], tmp_path: Path) -> tuple[Engine, Engine]:
    """Of two releases, each complete in the same empty collection."""
    first, second = (Engine.open(folder, tmp_path / "collection") for folder in releases)
    return first, second


def collection_of(engine: Engine) -> OpenCollection:
    assert engine.collection is not None
    return engine.collection


def answered(engine: Engine, request: Request) -> Answer:
    (answer,) = engine.answer([request])
    assert isinstance(answer, Answer), answer
    return answer


def upsert(engine: Engine, **contents: bytes) -> None:
    answered(engine, UpsertRequest(items=tuple(NewItem(name, content) for name, content in contents.items())))


def nearest(engine: Engine, content: bytes) -> tuple[str, float]:
    (result,) = answered(engine, SearchRequest(images=(content,), k=1)).results
    return result["neighbours"][0]["id"], result["neighbours"][0]["score"]


def assert_found(engine: Engine, contents: dict[str, bytes]) -> None:
    """Every item is found first by its picture, and is embedded by the engine's own release."""
    for name, content in contents.items():
        found, score = nearest(engine, content)
        assert (found, round(score, 4)) == (name, 1.0)
    catalogue = collection_of(engine).catalogue
    vectors = catalogue.vectors.of([*contents], engine.space)
    expected = engine.embed(np.stack([decode(content, SIZE) for content in contents.values()])).embedding
    np.testing.assert_allclose(np.stack([vectors[name] for name in contents]), expected, atol=1e-6)


def space_of(engine: Engine) -> tuple[bool, int, int]:
    about = collection_of(engine).describe()
    return about["complete"], about["pending"], about["failed"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.02)


def test_what_one_writes_the_other_finds_at_once(engines: tuple[Engine, Engine], files: list[bytes]) -> None:
    contents = {f"n{number}": file for number, file in enumerate(files[:COUNT])}
    upsert(engines[0], **contents)
    assert space_of(engines[1]) == (True, COUNT, 0)
    assert_found(engines[1], contents)
    assert space_of(engines[1]) == (True, 0, 0)
    contents |= {"n1": files[-1], "new": files[-2]}  # the other way, one with other bytes
    upsert(engines[1], n1=files[-1], new=files[-2])
    assert_found(engines[0], contents)
    assert_found(engines[1], contents)
    before = [collection_of(engine).catalogue.vectors.sequence(engine.space) for engine in engines]
    answered(engines[0], UpsertRequest(items=(NewItem("n2", files[2], "label", {"colour": "red"}),)))
    assert not collection_of(engines[1]).catalogue.spaces.behind(engines[1].space)
    assert [collection_of(engine).catalogue.vectors.sequence(engine.space) for engine in engines] == before
    answered(engines[0], DeleteRequest(ids=("n1", "n2")))
    assert {nearest(engine, files[-1])[0] for engine in engines}.isdisjoint(["n1", "n2"])


def test_a_batch_that_only_counts_waits_for_nothing(engines: tuple[Engine, Engine], files: list[bytes]) -> None:
    upsert(engines[0], a=files[0])
    assert answered(engines[1], StatsRequest()).more["pending"] == 1
    shown = answered(engines[1], GetRequest(ids=("a",))).results[0]
    assert not shown["embedded"]
    (found,) = answered(engines[1], GetRequest(ids=("a",), include=frozenset(["vector"]))).results
    assert found["embedded"]
    assert found["vector"].shape == (16,)
    stats = answered(engines[1], StatsRequest()).more
    assert (stats["complete"], stats["pending"], stats["failed"]) == (True, 0, 0)
    assert stats["spaces"][engines[0].space[:16]] == {"complete": True, "pending": 0, "failed": 0}


def test_a_picture_replaced_while_it_is_embedded_is_embedded_again(
    engines: tuple[Engine, Engine], files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(engines[0], a=files[0], b=files[1])
    read, replaced = PendingSources.read, threading.Event()

    def read_and_replace(self: PendingSources, pending: Pending) -> Picture:
        picture = read(self, pending)
        if pending.id == "a" and not replaced.is_set():
            replaced.set()
            writer = threading.Thread(target=upsert, args=(engines[0],), kwargs={"a": files[2]})
            writer.start()
            writer.join()
        return picture

    monkeypatch.setattr(PendingSources, "read", read_and_replace)
    assert nearest(engines[1], files[1])[0] == "b"
    assert replaced.is_set()
    assert "a" not in collection_of(engines[1]).catalogue.vectors.of(["a"], engines[1].space)
    assert_found(engines[1], {"a": files[2], "b": files[1]})


def test_writes_that_never_cease_hold_up_no_search(
    engines: tuple[Engine, Engine], files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as a search catches up with come anew meanwhile: it waits for those before it only."""
    number = iter(range(1000))
    embed = engines[1]._embedder.files_afresh

    def embed_slowly(images: list[bytes]) -> object:
        upsert_one = threading.Thread(target=upsert, args=(engines[0],), kwargs={f"more{next(number)}": files[3]})
        upsert_one.start()
        upsert_one.join()
        return embed(images)

    upsert(engines[0], a=files[0])
    collection_of(engines[1]).embed_with(embed_slowly)  # type: ignore[arg-type]
    assert nearest(engines[1], files[0])[0] == "a"
    assert next(number) < 5


def test_what_can_not_be_read_is_told_and_blocks_nothing(
    engines: tuple[Engine, Engine], files: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "file!.png").write_bytes(files[0])
    (tmp_path / "changed.png").write_bytes(files[1])
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("in/it.png", files[2])
    paths = {"file": "file!.png", "zip": "some.zip!in/it.png", "changed": "changed.png"}
    contents = dict(zip(paths, files, strict=False)) | {"zip": files[2], "changed": files[1]}
    made = [Item(name, Source.at(str(tmp_path / path), contents[name])) for name, path in paths.items()]
    gone = Item("gone", Source.at(str(tmp_path / "gone.png"), files[3]))
    broken = Item("broken", Source.kept(b"no image at all"))
    vectors = engines[0].embed(np.stack([decode(file, SIZE) for file in files[:5]])).embedding
    collection_of(engines[0]).catalogue.upsert([*made, gone, broken], vectors, engines[0].space)
    (tmp_path / "changed.png").write_bytes(files[4])
    assert_found(engines[1], {name: contents[name] for name in ("file", "zip")})
    assert space_of(engines[1]) == (True, 0, 3)
    reasons = collection_of(engines[1]).catalogue.spaces.failures(engines[1].space, limit=9)
    assert "No such file" in reasons["gone"]
    assert "no longer the file that was stored: ingest it again" in reasons["changed"]
    assert "not an image of a known format" in reasons["broken"]


def test_what_is_out_of_reach_waits_and_holds_up_no_search(
    engines: tuple[Engine, Engine], files: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.operations.catching_up.PIECE", 2)
    images = tmp_path / "images"
    images.mkdir()
    away = {f"{number}.png": file for number, file in enumerate(files[:5])}
    for name, file in away.items():
        (images / name).write_bytes(file)
    first, second = map(collection_of, engines)
    made = [Item(name, Source.at(str(images / name), file)) for name, file in away.items()]
    vectors = engines[0].embed(np.stack([decode(file, SIZE) for file in files[:5]])).embedding
    first.catalogue.upsert(made, vectors, engines[0].space)
    upsert(engines[0], kept=files[5])
    images.rename(tmp_path / "unmounted")
    assert_found(engines[1], {"kept": files[5]})
    assert space_of(engines[1]) == (True, 5, 0)
    (tmp_path / "unmounted").rename(images)
    assert second.catching_up is not None
    second.catching_up.in_background(60.0)
    assert_found(engines[1], {"kept": files[5]})
    assert space_of(engines[1]) == (True, 5, 0)  # not tried again at once
    monkeypatch.setattr("serving.operations.catching_up._PAUSE_SECONDS", 0.0)
    images.rename(tmp_path / "unmounted")
    upsert(engines[0], more=files[6])
    collection_of(engines[1]).embed_with(engines[1]._embedder.files_afresh)
    assert_found(engines[1], {"more": files[6]})
    (tmp_path / "unmounted").rename(images)
    second.catching_up.in_background(60.0)
    assert_found(engines[1], away)
    assert space_of(engines[1]) == (True, 0, 0)


def test_the_keeper_fills_a_space_and_then_keeps_it_complete(
    releases: tuple[Path, Path], files: list[bytes], tmp_path: Path
) -> None:
    first = Engine.open(releases[0], tmp_path)
    contents = {f"n{number}": file for number, file in enumerate(files)}
    upsert(first, **contents)
    second = Engine.open(releases[1], tmp_path)
    assert space_of(second) == (False, 2 * COUNT, 0)
    assert answered(second, SearchRequest(images=(files[0],), k=1)).results == [{"neighbours": []}]
    keeper = Keeper(collection_of(second))
    try:
        wait_until(lambda: space_of(second) == (True, 0, 0))
        upsert(first, later=files[0])
        wait_until(lambda: "later" in collection_of(second).catalogue.vectors.of(["later"], second.space))
    finally:
        keeper.stop()
    assert_found(second, {name: contents[name] for name in ("n5", "n9")})
