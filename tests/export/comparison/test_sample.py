from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.images.decode import decode
from export.comparison.pixels import reader_for
from export.comparison.sample import SampleSizes, choose_rows
from retraining.frozen import prepare_frozen
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from tests.conftest import cifar10_files
from training.data.dataset import Dataset
from training.data.prepare import Request


def test_images_are_bounded_and_spread_over_labels(digits: Dataset) -> None:
    sample = choose_rows(digits, SampleSizes(gallery=200, validation=50, queries=100, signals=40))
    assert sample.counts() == {"gallery": 200, "validation": 50, "queries": 100, "signals": 40}
    assert set(sample.gallery) <= set(digits.rows("train"))
    assert set(sample.queries) <= set(digits.rows("test"))
    for rows in (sample.gallery, sample.queries, sample.queries[sample.signals]):
        assert np.ptp(np.bincount(sample.labels_of(rows), minlength=10)) <= 0.08 * len(rows)
        assert len(np.unique(rows)) == len(rows)


def test_the_same_data_gives_the_same_images(digits: Dataset) -> None:
    few = SampleSizes(gallery=50, queries=20)
    assert (choose_rows(digits, few).queries == choose_rows(digits, few).queries).all()


def test_few_images_are_all_taken(digits: Dataset) -> None:
    sample = choose_rows(digits)
    assert (sample.queries == digits.rows("test")).all()
    assert (sample.gallery == digits.rows("train")).all()


def test_without_test_images_the_error_says_so(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="has no test images"):
        choose_rows(replace(digits, splits=np.full(len(digits), "train")))


def test_another_size_is_decoded_again_from_the_source(digits: Dataset) -> None:
    rows = digits.rows("test")[:3]
    found = reader_for(digits, 12)(rows)
    assert found.shape == (3, 12, 12, 3)
    assert (found[1] == decode(digits.read_item(digits.ids[rows[1]]), 12)).all()


def test_items_that_changed_since_they_were_frozen_are_scaled_from_then(tmp_path: Path) -> None:
    files = cifar10_files(per_label={"train": 8})
    catalogue = open_catalogue(tmp_path / "c", create=True)
    vectors = np.eye(1, 4, dtype=np.float32)
    for name, content in files.items():
        catalogue.upsert([Item(name, Source.kept(content))], vectors, "r" * 64)
    data = prepare_frozen(tmp_path / "c", tmp_path / "data", request=Request(image_size=32))
    kept, deleted, replaced = data.ids[:3]
    before = reader_for(data, 24)(np.arange(3))
    catalogue.delete([deleted])
    catalogue.upsert([Item(replaced, Source.kept(files[kept]))], vectors, "r" * 64)
    after = reader_for(Dataset.load(data.folder), 24)(np.arange(3))
    assert (after == before).all()
    assert (after[0] != after[2]).any()


def test_without_its_source_another_size_is_a_clear_error(digits: Dataset, tmp_path: Path) -> None:
    homeless = replace(digits, facts=digits.facts | {"source": str(tmp_path / "gone")})
    assert (reader_for(homeless, 8)(digits.rows("test")[:2]) == digits.images[digits.rows("test")[:2]]).all()
    with pytest.raises(ValueError, match=r"takes images of 12 px.*has them at 8 px.*--no-champion"):
        reader_for(homeless, 12)
