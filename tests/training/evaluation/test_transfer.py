"""Transfer: which data sets are taken, and what is measured of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.images.folders import SourceError
from tests.training.conftest import write_images
from tests.training.labelled import in_memory
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare
from training.evaluation.label_splits import LabelSplits
from training.evaluation.representations import PIXELS, raw_pixels
from training.evaluation.transfer import load_targets, transfer
from training.measures.embed import embed_all
from training.measures.probe import fit_pipeline


def folder(path: Path, names: Sequence[str], *, size: int = 8, seed: int = 0) -> Path:
    write_images(path / "images", list(names), seed=seed)
    return prepare(path / "images", path / "data", request=Request(image_size=size)).folder


LABELLED = [f"{label}/{number}.png" for label in ("ant", "bee") for number in range(12)]


def test_each_data_set_is_taken_once_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "1", LABELLED), folder(tmp_path / "2", LABELLED, seed=1)
    found = load_targets([first, second, first], image_size=8)
    other = Dataset.load(second).digest[:8]
    assert list(found) == ["images", f"images ({other})"]


def test_what_can_not_be_measured_is_refused_with_what_to_do(tmp_path: Path) -> None:
    large = folder(tmp_path / "large", LABELLED, size=16)
    flat = folder(tmp_path / "flat", [f"{number}.png" for number in range(5)])
    with pytest.raises(ValueError, match=r"images of 16 px, the checkpoint learnt at 8 px; prepare .* --image-size 8"):
        load_targets([large], image_size=8)
    with pytest.raises(ValueError, match="the images have no labels"):
        load_targets([flat], image_size=8)
    with pytest.raises(SourceError, match="is no data folder"):
        load_targets([tmp_path], image_size=8)


def test_the_target_is_measured_on_its_own_splits_and_kept_apart(tmp_path: Path) -> None:
    data = Dataset.load(folder(tmp_path, LABELLED))
    elsewhere = in_memory(np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8), ["train"] * 9, None)
    found = transfer(data, [raw_pixels(elsewhere)], tmp_path / "out")
    splits, h = LabelSplits.of(data), embed_all(raw_pixels(data).by, data.images, description=None)
    assert splits is not None
    probe = fit_pipeline(h[splits.train], splits.labels[splits.train], c=found["linear_probe"]["C"])
    assert found["linear_probe"]["accuracy"] == pytest.approx(probe.score(h[splits.test], splits.labels[splits.test]))
    assert found["dataset"] == data.digest
    assert found["baselines"] == {}
    counts = found["confusion"]
    twice = [raw_pixels(elsewhere), replace(raw_pixels(elsewhere), name="another")]
    compared = transfer(data, twice, tmp_path / "out")
    assert compared["confusion"] == counts
    assert "per_class" in compared["baselines"]["another"]
    assert "confusion" not in compared["baselines"]["another"]
    kept = tmp_path / "out" / f"transfer-{data.digest[:12]}"
    assert (kept / "embeddings" / f"{PIXELS.replace(' ', '-')}.npy").exists()
