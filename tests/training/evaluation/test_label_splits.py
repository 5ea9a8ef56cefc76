"""What may be fitted on, chosen on and tested; and what is missing for it, in words."""

import numpy as np
import pytest

from tests.training.labelled import in_memory
from training.evaluation.label_splits import LabelSplits, lacking

BLACK = np.zeros((6, 4, 4, 3), dtype=np.uint8)


def test_rows_and_labels_of_every_split() -> None:
    splits = ["train", "test", "train", "validation", "train", "test"]
    found = LabelSplits.of(in_memory(BLACK, splits, ["cat", "ant", "dog", "cat", "dog", "bee"]))
    assert found is not None
    assert found.train.tolist() == [0, 2, 4]
    assert found.validation.tolist() == [3]
    assert found.test.tolist() == [1, 5]
    assert found.classes == ("ant", "bee", "cat", "dog")
    assert found.seen.tolist() == [2, 3]
    assert found.targets(found.train).tolist() == [0, 1, 1]
    assert found.targets(found.test).tolist() == [-1, -1]
    assert found.names(found.test) == ["ant", "bee"]


@pytest.mark.parametrize(
    ("splits", "labels", "words"),
    [
        (["train"] * 3 + ["test"] * 3, None, "no labels"),
        (["train"] * 3 + ["test"] * 3, ["a"] * 3 + ["b"] * 3, "one label only"),
        (["train"] * 6, ["a", "b"] * 3, "no test images"),
    ],
)
def test_what_is_missing_is_said(splits: list[str], labels: list[str] | None, words: str) -> None:
    data = in_memory(BLACK, splits, labels)
    assert LabelSplits.of(data) is None
    assert words in (lacking(data) or "")
