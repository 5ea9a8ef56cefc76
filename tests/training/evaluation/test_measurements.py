"""Which images are measured, and which wishes are accepted."""

import numpy as np
import pytest

from tests.training.labelled import in_memory
from training.evaluation.augmented_probe import EPOCHS
from training.evaluation.measurements import SIGNAL_IMAGES, Extras, signal_rows, unseen


def test_of_images_sorted_by_label_signals_are_of_every_label() -> None:
    labels = [name for split in (1000, 1200, 600) for name in np.repeat(["a", "b", "c", "d"], split // 4).tolist()]
    splits = ["train"] * 1000 + ["test"] * 1200 + ["validation"] * 600
    data = in_memory(np.zeros((2800, 4, 4, 3), dtype=np.uint8), splits, labels)
    rows = signal_rows(data)
    assert len(rows) == SIGNAL_IMAGES
    assert set(rows) <= set(unseen(data))
    np.testing.assert_allclose(np.bincount(data.labels_of(rows)), 125, atol=1)
    assert {str(split) for split in data.splits[rows]} == {"test", "validation"}


def test_few_images_are_all_measured() -> None:
    data = in_memory(np.zeros((12, 4, 4, 3), dtype=np.uint8), ["train"] * 8 + ["test"] * 4, None)
    assert signal_rows(data).tolist() == list(range(12))


def test_more_passes_than_epochs_that_see_one_are_refused() -> None:
    assert Extras(augmented_passes=EPOCHS).augmented_passes == 40
    with pytest.raises(ValueError, match="augmented_passes is 41; accepted: 0 to 40"):
        Extras(augmented_passes=EPOCHS + 1)
