"""Folders, zips and library sets to data folders: labels, splits, sizes, broken files, reuse."""

import hashlib
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.command_line.command import main
from core.images.decode import decode
from core.images.folders import SourceError
from retraining.prepare_command import COMMAND
from tests.training.conftest import CIFAR10, write_images
from training.data import prepare as preparing
from training.data.dataset import Dataset
from training.data.layout import assign
from training.data.prepare import Request, prepare
from training.data.splits import held_out


def names(*patterns: tuple[str, int]) -> list[str]:
    return [f"{folder}{number:03d}.png" for folder, count in patterns for number in range(count)]


def test_a_flat_folder_has_no_labels_and_gets_splits(tmp_path: Path) -> None:
    write_images(tmp_path / "holiday", names(("", 20)))
    dataset = prepare(tmp_path / "holiday", tmp_path / "data", request=Request(image_size=8))
    assert dataset.labels is None
    assert dataset.classes is None
    assert [len(dataset.rows(split)) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert dataset.images.shape == (20, 8, 8, 3)
    assert dataset.images.dtype == np.uint8
    assert isinstance(dataset.images, np.memmap)


def test_sub_folders_are_labels_and_one_common_folder_is_stripped(tmp_path: Path) -> None:
    write_images(tmp_path / "pets", names(("all/cat/", 10), ("all/dog/deep/", 10)))
    dataset = prepare(tmp_path / "pets", tmp_path / "data", request=Request(image_size=8))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.ids[0] == "cat/000.png"
    assert dataset.facts["prefix"] == "all"
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    for split in ("validation", "test"):
        assert sorted(dataset.labels_of(dataset.rows(split))) == [0, 1]
    row = dataset.ids.index("dog/deep/003.png")
    file = tmp_path / "pets/all/dog/deep/003.png"
    assert dataset.read_item("dog/deep/003.png") == file.read_bytes()
    assert np.array_equal(dataset.images[row], decode(file.read_bytes(), 8))


@pytest.mark.parametrize("third", ["val", "valid", "validation", None])
def test_split_folders_are_the_splits(tmp_path: Path, third: str | None) -> None:
    folders = [("train/a/", 10), ("train/b/", 10), ("test/a/", 3), ("test/b/", 3)]
    folders += [(f"{third}/a/", 2), (f"{third}/b/", 2)] if third else []
    splits, labels = assign(names(*folders), seed=0, hold_out=0.1)
    assert labels is not None
    assert set(labels) == {"a", "b"}
    assert splits.count("test") == 6
    assert splits.count("validation") == (4 if third else 2)


def test_a_label_called_train_is_a_label() -> None:
    splits, labels = assign(names(("train/", 10), ("plane/", 10)), seed=0, hold_out=0.1)
    assert labels is not None
    assert set(labels) == {"train", "plane"}
    assert "test" in splits


def test_many_images_beside_sub_folders_mean_no_labels(caplog: pytest.LogCaptureFixture) -> None:
    assert assign(names(("", 4), ("a/", 5), ("b/", 5)), seed=0, hold_out=0.1)[1] is None
    assert "4 of 14 images lie in no label folder (the first: 000.png)" in caplog.text


def test_hold_outs_are_stratified_seeded_and_never_everything() -> None:
    codes = np.repeat([0, 1, 2], [100, 30, 3])
    held = held_out(codes, 0.1, seed=1)
    assert np.bincount(codes[held], minlength=3).tolist() == [10, 3, 0]
    assert np.array_equal(held, held_out(codes, 0.1, seed=1))
    assert not np.array_equal(held, held_out(codes, 0.1, seed=2))
    assert len(held_out(np.zeros(2, dtype=np.int64), 0.1, seed=0)) == 1
    assert len(held_out(np.zeros(1, dtype=np.int64), 0.1, seed=0)) == 0
    assert len(held_out(np.arange(3), 0.5, seed=0)) == 1
    for share in (0, 0.95):
        with pytest.raises(ValueError, match=rf"hold_out is {share}; accepted: above 0, to 0.5"):
            held_out(codes, share, seed=0)


def test_a_train_folder_alone_is_a_split() -> None:
    splits, labels = assign(names(("train/cat/", 20), ("train/dog/", 20)), seed=0, hold_out=0.1)
    assert labels is not None
    assert set(labels) == {"cat", "dog"}
    assert splits.count("test") == 4


def test_broken_files_are_listed_and_others_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_images(tmp_path / "mixed", names(("", 6)))
    (folder / "001.png").write_bytes(b"no picture")
    (folder / "003.png").write_bytes((folder / "004.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("hello")
    (folder / ".hidden.png").write_bytes(b"x")
    write_images(folder, ["__MACOSX/._000.png"])
    dataset = prepare(folder, tmp_path / "data", request=Request(image_size=8))
    assert dataset.ids == ["000.png", "002.png", "004.png", "005.png"]
    assert len(dataset.images) == 4
    assert [item["path"] for item in dataset.facts["unreadable"]] == ["001.png", "003.png"]
    assert "can't be read and are left out: 2" in caplog.text
    assert dataset.facts["ignored"] == 3
    assert dataset.facts["ignored_kinds"] == {"hidden": 2, ".txt": 1}
    assert np.array_equal(dataset.images[2], decode((folder / "004.png").read_bytes(), 8))


def test_a_link_to_nowhere_is_told_and_what_is_no_file_is_passed_by(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "linked", names(("deep/er/", 3), ("", 3)))
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "named.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    dataset = prepare(folder, tmp_path / "data", request=Request(image_size=8))
    assert dataset.ids == ["000.png", "001.png", "002.png", *(f"deep/er/{number:03d}.png" for number in range(3))]
    assert [item["path"] for item in dataset.facts["unreadable"]] == ["gone.jpg"]
    assert "No such file" in dataset.facts["unreadable"][0]["reason"]


def test_nothing_readable_and_nothing_there_are_errors(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    with pytest.raises(SourceError, match="no image files"):
        prepare(folder, tmp_path / "data")
    (folder / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="none of the 1 image files"):
        prepare(folder, tmp_path / "data")
    (tmp_path / "broken.zip").write_bytes(b"PK nothing")
    with pytest.raises(SourceError, match="no readable zip"):
        prepare(tmp_path / "broken.zip", tmp_path / "data")
    with pytest.raises(SourceError, match="neither a folder nor a zip"):
        prepare(tmp_path / "absent", tmp_path / "data")
    with pytest.raises(SourceError, match="no data folder"):
        Dataset.load(tmp_path / "data")


def test_a_zip_gives_what_its_folder_gives_and_damage_is_listed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "pets", names(("cat/", 8), ("dog/", 8)))
    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in sorted(folder.rglob("*.png")):
            target.write(file, f"pets/{file.relative_to(folder)}")
        target.writestr("pets/cat/broken.png", b"not an image")
        target.writestr("../../escape.png", b"hidden by its name")
    with pytest.raises(SourceError):
        prepare(tmp_path / "none.zip", tmp_path / "x")
    from_folder = prepare(folder, tmp_path / "one", request=Request(image_size=8))
    from_zip = prepare(archive, tmp_path / "two", request=Request(image_size=8))
    assert np.array_equal(from_folder.images, from_zip.images)
    assert [item["path"] for item in from_zip.facts["unreadable"]] == ["cat/broken.png"]
    assert from_zip.facts["ignored"] == 1
    item = from_zip.ids[0]
    assert decode(from_zip.read_item(item), 8).shape == (8, 8, 3)
    with pytest.raises(KeyError):
        from_zip.read_item("../../escape.png")


@pytest.mark.parametrize(("side", "expected"), [(8, 8), (10, 8), (30, 32), (64, 64), (70, 96), (250, 224), (600, 224)])
def test_auto_size_follows_the_median_short_side(tmp_path: Path, side: int, expected: int) -> None:
    for number in range(3):
        Image.new("RGB", (side + 40 * number, side)).save(tmp_path / f"{number}.png")
    assert prepare(tmp_path, tmp_path / "data").image_size == expected
    assert prepare(tmp_path, tmp_path / "less", request=Request(max_size=48)).image_size == min(expected, 48)


def test_an_equal_request_is_reused_and_a_change_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_images(tmp_path / "some", names(("", 8)))
    first = prepare(folder, tmp_path / "data", request=Request(image_size=8))
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "decode_all", lambda *_, **__: pytest.fail("decoded again"))
        with caplog.at_level("INFO"):
            again = prepare(folder, tmp_path / "data", request=Request(image_size=8))
    assert again.digest == first.digest
    assert "reusing" in caplog.text
    reseeded = prepare(folder, tmp_path / "data", request=Request(image_size=8, seed=5))
    assert reseeded.digest != first.digest
    write_images(folder, ["new.png"], seed=3)
    assert len(prepare(folder, tmp_path / "data", request=Request(image_size=8))) == 9


def test_digits_are_written_once_and_keep_their_grey_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--dataset", "digits", "--root", str(tmp_path / "root"), "--out", str(tmp_path / "data")]
    assert main(COMMAND, arguments) == 0
    dataset = Dataset.load(tmp_path / "data")
    assert dataset.image_size == 8
    assert dataset.classes == list("0123456789")
    assert dataset.facts["name"] == "digits"
    assert len(dataset) == 1797
    assert "1,797 images of 8x8" in capsys.readouterr().out
    levels = np.unique(dataset.images[:100])
    assert set(levels.tolist()) <= {round(level * 255 / 16) for level in range(17)}


def test_command_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND, ["--images", str(tmp_path / "absent"), "--out", str(tmp_path / "data")]) == 1
    assert re.match(r"error: .*neither a folder.*\n$", capsys.readouterr().err)
    assert main(COMMAND, ["--images", str(tmp_path), "--max-size", "3", "--out", str(tmp_path / "data")]) == 1
    assert capsys.readouterr().err.startswith("error: max_size is 3")


def test_real_cifar10_from_a_zip(cifar: Dataset) -> None:
    assert cifar.facts["prefix"] == "cifar10"
    assert cifar.classes == ["airplane", "automobile", "bird", "cat"]
    assert {split: len(cifar.rows(split)) for split in ("train", "validation", "test")} == {
        "train": 268,
        "validation": 32,
        "test": 100,
    }
    with zipfile.ZipFile(CIFAR10) as archive:
        bytes_there = archive.read(f"cifar10/{cifar.ids[0]}")
    assert cifar.read_item(cifar.ids[0]) == bytes_there
    assert np.array_equal(cifar.images[0], decode(bytes_there, 16))
    assert Image.open(io.BytesIO(bytes_there)).size == (32, 32)
    lines = (cifar.folder / "items.jsonl").read_text().splitlines()
    digest = hashlib.sha256(bytes_there).hexdigest()
    assert json.loads(lines[0]) == {"id": cifar.ids[0], "label": "airplane", "split": "test", "sha256": digest}
