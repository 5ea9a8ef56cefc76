"""Layouts of folders from bug reports: the labels and the split that a person sees, or a sentence."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from core.images.folders import SourceError
from tests.training.conftest import write_images
from training.data.dataset import Dataset
from training.data.layout import assign
from training.data.prepare import Request, prepare

CASES = Path(__file__).parents[3].parent / "shared/cases/layout"
ROOT = Path(__file__).parents[3]


def prepared(images: Path, out: Path) -> tuple[Dataset, Counter[tuple[str, str]]]:
    data = prepare(images, out, request=Request(image_size=8))
    return data, Counter((str(split), data.label_name(row) or "") for row, split in enumerate(data.splits))


def images_of(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, label), count in counts.items():
        found[label] += count
    return dict(found)


@pytest.mark.parametrize("case", ["kaggle", "Training_Testing"])
def test_splits_are_found_below_wrappers_and_in_other_spellings(case: str, tmp_path: Path) -> None:
    _, counts = prepared(CASES / case, tmp_path)
    assert {key: count for key, count in counts.items() if key[0] == "test"} == {("test", "cat"): 2, ("test", "dog"): 2}
    assert images_of(counts) == {"cat": 8, "dog": 8}


@pytest.mark.parametrize("case", ["wrapped2", "syno", "trash"])
def test_labels_are_found_whatever_lies_around_them(case: str, tmp_path: Path) -> None:
    assert images_of(prepared(CASES / case, tmp_path)[1]) == {"cat": 8, "dog": 8}


def test_thumbnails_of_a_flat_folder_are_no_images(tmp_path: Path) -> None:
    data, _ = prepared(CASES / "flatsyno", tmp_path)
    assert (len(data), data.classes) == (16, None)


def test_a_stray_picture_has_no_label_and_takes_none_from_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, counts = prepared(CASES / "stray", tmp_path)
    assert images_of(counts) == {"cat": 8, "dog": 8, "": 1}
    assert counts["unlabelled", ""] == 1
    assert "1 of 17 images lie beside the label folders (the first: preview.png)" in caplog.text


def test_label_folders_may_be_links(tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    write_images(linked, [f"bird/{number}.png" for number in range(8)])
    for label in ("cat", "dog"):
        (linked / label).symlink_to(CASES / "stray" / label)
    assert images_of(prepared(linked, tmp_path / "data")[1]) == {"bird": 8, "cat": 8, "dog": 8}


def names(*patterns: tuple[str, int]) -> list[str]:
    return [f"{folder}{number:03d}.png" for folder, count in patterns for number in range(count)]


@pytest.mark.parametrize(
    "folders",
    [
        ["training_set/training_set/", "test_set/test_set/"],
        ["train/images/", "test/images/"],
        ["a/b/Train/", "a/b/Test/"],
        ["train/", "Validation/"],
    ],
)
def test_wrappers_may_stand_anywhere(folders: list[str]) -> None:
    first, second = folders
    splits, labels = assign(
        names((f"{first}cat/", 9), (f"{first}dog/", 9), (f"{second}cat/", 3), (f"{second}dog/", 3), ("", 1)),
        seed=0,
        hold_out=0.1,
    )
    assert labels is not None
    assert set(labels) == {"cat", "dog", None}
    assert splits[-1] == "unlabelled"
    other = "validation" if "alid" in second else "test"
    assert splits[18:24] == [other] * 6
    assert other not in splits[:18]


def test_a_folder_beside_train_and_test_is_no_label() -> None:
    splits, labels = assign(
        names(("train/a/", 20), ("train/b/", 20), ("test/a/", 5), ("test/b/", 5), ("sample/", 3)), seed=0, hold_out=0.1
    )
    assert labels is not None
    assert set(labels) == {"a", "b", None}
    assert splits[-3:] == ["unlabelled"] * 3


def test_a_split_with_one_label_keeps_it() -> None:
    splits, labels = assign(names(("train/a/", 9), ("train/b/", 9), ("test/a/", 3)), seed=0, hold_out=0.1)
    assert labels is not None
    assert labels[-1] == "a"
    assert splits[-1] == "test"


def test_labels_are_in_one_order_whatever_the_run(tmp_path: Path) -> None:
    labels = ["1", "01", "001", "10", "2", "٣", "b", "a", str(2**80)]
    images = write_images(tmp_path / "images", [f"{label}/{number}.png" for label in labels for number in range(2)])
    code = (
        "import sys; from training.data.prepare import Request, prepare;"
        "print(prepare(sys.argv[1], sys.argv[2], request=Request(image_size=8)).classes)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(images), str(tmp_path / seed)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert found == {"['001', '01', '1', '2', '٣', '10', '" + str(2**80) + "', 'a', 'b']\n"}


def test_a_path_that_is_not_utf8_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    shutil.copytree(CASES / "stray", odd)
    with pytest.raises(SourceError, match="is not UTF-8: rename it"):
        prepare(odd, tmp_path / "data")
    with pytest.raises(SourceError, match="is not UTF-8: rename it"):
        prepare(CASES / "stray", odd / "data")
