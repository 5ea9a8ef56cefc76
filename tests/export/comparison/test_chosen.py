from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.comparison.chosen import Sizes, choose_rows
from export.comparison.pixels import reader_for
from serving.images import decode
from training.dataset import Dataset


def test_images_are_bounded_and_spread_over_labels(digits: Dataset) -> None:
    chosen = choose_rows(digits, Sizes(gallery=200, validation=50, queries=100, signals=40))
    assert chosen.counts() == {"gallery": 200, "validation": 50, "queries": 100, "signals": 40}
    assert set(chosen.gallery) <= set(digits.rows("train"))
    assert set(chosen.queries) <= set(digits.rows("test"))
    for rows in (chosen.gallery, chosen.queries, chosen.queries[chosen.signals]):
        assert np.ptp(np.bincount(chosen.labels_of(rows), minlength=10)) <= 0.08 * len(rows)
        assert len(np.unique(rows)) == len(rows)


def test_the_same_data_gives_the_same_images(digits: Dataset) -> None:
    few = Sizes(gallery=50, queries=20)
    assert (choose_rows(digits, few).queries == choose_rows(digits, few).queries).all()


def test_few_images_are_all_taken(digits: Dataset) -> None:
    chosen = choose_rows(digits)
    assert (chosen.queries == digits.rows("test")).all()
    assert (chosen.gallery == digits.rows("train")).all()


def test_without_test_images_the_error_says_so(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="has no test images"):
        choose_rows(replace(digits, splits=np.full(len(digits), "train")))


def test_another_size_is_decoded_again_from_the_source(digits: Dataset) -> None:
    rows = digits.rows("test")[:3]
    found = reader_for(digits, 12)(rows)
    assert found.shape == (3, 12, 12, 3)
    assert (found[1] == decode(digits.read_item(digits.ids[rows[1]]), 12)).all()


def test_without_its_source_another_size_is_a_clear_error(digits: Dataset, tmp_path: Path) -> None:
    homeless = replace(digits, facts=digits.facts | {"source": str(tmp_path / "gone")})
    assert (reader_for(homeless, 8)(digits.rows("test")[:2]) == digits.images[digits.rows("test")[:2]]).all()
    with pytest.raises(ValueError, match=r"takes images of 12 px.*has them at 8 px.*--no-champion"):
        reader_for(homeless, 12)
