"""A collection frozen as a data folder: what is in it, who belongs where, and what happens to it meanwhile."""

import json
from pathlib import Path

import numpy as np
import pytest

from core.command_line.command import main
from core.images.decode import decode
from core.images.folders import SourceError
from export.pictures import Pictures
from retraining.frozen import FrozenCollection, prepare_frozen
from retraining.prepare_command import COMMAND
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.writes import Change
from tests.conftest import cifar10_files
from training.data.dataset import Dataset
from training.data.splits import TEST, TRAIN, UNLABELLED, VALIDATION
from training.run.run import training_rows

RELEASE = "r" * 64


@pytest.fixture
def files() -> dict[str, bytes]:
    return cifar10_files(per_label={"train": 12})


def put(folder: Path, items: list[Item]) -> Catalogue:
    catalogue = open_catalogue(folder, create=True)
    vectors = np.zeros((len(items), 4), np.float32)
    vectors[:, 0] = 1
    catalogue.upsert(items, vectors, RELEASE)
    return catalogue


def item(name: str, content: bytes, *, label: str | None) -> Item:
    return Item(name, Source.kept(content), label)


def label_of(name: str) -> str:
    return name.split("/")[1]


def test_items_become_rows_with_their_own_labels_and_pixels(files: dict[str, bytes], tmp_path: Path) -> None:
    put(tmp_path / "c", [item(name, content, label=label_of(name)) for name, content in files.items()])
    data = prepare_frozen(tmp_path / "c", tmp_path / "data")
    assert data.ids == list(files)
    assert data.classes == sorted({label_of(name) for name in files})
    assert data.labels is not None
    assert [data.classes[code] for code in data.labels] == [label_of(name) for name in files]
    for row in (0, 57, 119):
        np.testing.assert_array_equal(data.images[row], decode(files[data.ids[row]], data.image_size))
    assert data.facts["collection"] == {"seq": 1, "items": 120, "labelled": 120, "seed": 0, "hold_out": 0.1}
    assert Pictures(data).read(3) == files[data.ids[3]]
    with pytest.raises(ValueError, match="was frozen from the collection"):
        data.read_item(data.ids[3])
    assert {TRAIN, VALIDATION, TEST} == set(data.splits)


def test_an_item_keeps_its_split_however_the_collection_grows(files: dict[str, bytes], tmp_path: Path) -> None:
    names = list(files)
    catalogue = put(tmp_path / "c", [item(name, files[name], label=label_of(name)) for name in names[::2]])
    before = prepare_frozen(tmp_path / "c", tmp_path / "before")
    catalogue.delete([names[0]])
    put(tmp_path / "c", [item(name, files[name], label=label_of(name)) for name in names[1::2]])
    after = prepare_frozen(tmp_path / "c", tmp_path / "after")
    was, now = (dict(zip(data.ids, data.splits, strict=True)) for data in (before, after))
    assert len(now) == len(files) - 1
    assert all(now[name] == split for name, split in was.items() if name in now)


def test_items_without_a_label_are_learnt_from_and_never_tested_on(files: dict[str, bytes], tmp_path: Path) -> None:
    names = list(files)
    put(
        tmp_path / "c",
        [item(name, files[name], label=label_of(name) if place % 3 else None) for place, name in enumerate(names)],
    )
    data = prepare_frozen(tmp_path / "c", tmp_path / "data")
    assert [data.ids[row] for row in data.rows(UNLABELLED)] == names[::3]
    assert data.labels is not None
    assert (data.labels[data.rows(UNLABELLED)] == -1).all()
    assert (data.labels[data.rows(TRAIN, VALIDATION, TEST)] >= 0).all()
    assert set(data.rows(UNLABELLED)) < set(training_rows(data))
    assert not set(data.rows(TEST)) & set(training_rows(data))
    assert Dataset.load(data.folder).classes == data.classes


def test_labels_that_were_changed_without_the_pictures_are_frozen(files: dict[str, bytes], tmp_path: Path) -> None:
    catalogue = put(tmp_path / "c", [item(name, content, label=None) for name, content in files.items()])
    assert prepare_frozen(tmp_path / "c", tmp_path / "data").classes is None
    catalogue.update([Change(name, label_of(name)) for name in files])
    data = prepare_frozen(tmp_path / "c", tmp_path / "data")
    assert data.classes is not None
    assert data.labels is not None
    assert [data.classes[code] for code in data.labels] == [label_of(name) for name in files]
    catalogue.update([Change(name, None) for name in files if label_of(name) == data.classes[0]])
    assert prepare_frozen(tmp_path / "c", tmp_path / "data").classes == data.classes[1:]


def test_too_few_labels_are_none(files: dict[str, bytes], tmp_path: Path) -> None:
    names = list(files)
    put(
        tmp_path / "c",
        [item(name, files[name], label="cat" if place < 4 else None) for place, name in enumerate(names)],
    )
    data = prepare_frozen(tmp_path / "c", tmp_path / "data")
    assert data.classes is None
    assert UNLABELLED not in data.splits


def test_what_changes_while_it_is_frozen_takes_no_row(files: dict[str, bytes], tmp_path: Path) -> None:
    names = list(files)
    catalogue = put(tmp_path / "c", [item(name, files[name], label=None) for name in names])
    frozen = FrozenCollection(tmp_path / "c")
    catalogue.delete([names[0]])
    put(tmp_path / "c", [item(names[1], files[names[2]], label=None)])
    with pytest.raises(ValueError, match="was deleted"):
        frozen.source.read(names[0])
    with pytest.raises(ValueError, match="was replaced"):
        frozen.source.read(names[1])
    assert frozen.source.read(names[2]) == files[names[2]]


def test_the_command_reuses_what_is_there_until_something_is_written(files: dict[str, bytes], tmp_path: Path) -> None:
    names = list(files)
    put(tmp_path / "c", [item(name, files[name], label=None) for name in names[:60]])
    given = ["--collection", str(tmp_path / "c"), "--out", str(tmp_path / "data"), "--image-size", "16"]
    assert main(COMMAND, given) == 0
    before = (tmp_path / "data" / "dataset.json").stat().st_mtime_ns
    assert main(COMMAND, given) == 0
    assert (tmp_path / "data" / "dataset.json").stat().st_mtime_ns == before
    put(tmp_path / "c", [item(names[60], files[names[60]], label=None)])
    assert main(COMMAND, given) == 0
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["collection"]["items"] == 61


def test_an_empty_collection_is_refused(tmp_path: Path) -> None:
    open_catalogue(tmp_path / "c", create=True)
    with pytest.raises(SourceError, match="has no items"):
        prepare_frozen(tmp_path / "c", tmp_path / "data")
