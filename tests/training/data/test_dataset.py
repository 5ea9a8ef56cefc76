"""Data folders that are not whole: cut short, tampered with, killed while written, without room; and large ones."""

import io
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.images.folders import SourceError
from tests.training.conftest import write_images
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare

ROOT = Path(__file__).parents[3]


@pytest.fixture
def whole(tmp_path: Path) -> Dataset:
    """40 labelled images of 8 px."""
    names = [f"{label}/{number:02d}.png" for label in ("blue", "red") for number in range(20)]
    return prepare(write_images(tmp_path / "images", names), tmp_path / "data", request=Request(image_size=8))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A zip of 400 JPEG files of 500 px, which take seconds to decode."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)).save(buffer, "JPEG")
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        for number in range(400):
            archive.writestr(f"{number:04d}.jpg", buffer.getvalue())
    return tmp_path / "photographs.zip"


def preparing(images: Path, out: Path, *, before: str = "") -> subprocess.Popen[str]:
    """The real command in a process of its own, after the Python statements `before`."""
    arguments = ["--images", str(images), "--out", str(out), "--image-size", "64"]
    run = f"from retraining.prepare_command import COMMAND, main\nsys.exit(main(COMMAND, {arguments!r}))"
    code = f"import sys\n{before}\n{run}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("left", [0, 40, 128, -1])
def test_an_image_file_cut_short_is_damage(whole: Dataset, left: int) -> None:
    path = whole.folder / "images.npy"
    data = path.read_bytes()
    path.write_bytes(data[:left])
    with pytest.raises(SourceError, match=r"data is damaged: .*; prepare it again"):
        Dataset.load(whole.folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("items.jsonl", '"split": "train", ', '"split": "tra', "damaged"),
        ("items.jsonl", '"label": "red"', '"label": "mauve"', "damaged: KeyError: 'mauve'"),
        ("items.jsonl", '"label": "red", ', "", "damaged: KeyError: 'label'"),
        ("items.jsonl", '{"id": "red/19.png"', '\n{"id": "red/19.png"', "damaged"),
        ("dataset.json", '"image_size": 8', '"image_size": 16', r"uint8 \(40, 8, 8, 3\); uint8 \(N, 16, 16, 3\)"),
        ("dataset.json", '"image_size"', '"size"', "damaged: KeyError"),
        ("dataset.json", '"image_size": 8', '"image_size', "no data folder"),
    ],
)
def test_other_damage_is_told_too(whole: Dataset, file: str, old: str, new: str, complaint: str) -> None:
    path = whole.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SourceError, match=complaint):
        Dataset.load(whole.folder)


def test_pictures_are_known_by_their_files_and_an_older_folder_can_not_tell(whole: Dataset) -> None:
    found = whole.contents()
    assert found is not None
    for row in (0, 7, len(whole) - 1):
        assert found[row] == int(sha256(whole.read_item(whole.ids[row])).hexdigest()[:16], 16)
    path = whole.folder / "items.jsonl"
    path.write_text(re.sub(r', "sha256": "\w+"', "", path.read_text(), count=1))
    older = Dataset.load(whole.folder)
    assert older.contents() is None
    assert older.ids == whole.ids


def test_items_that_are_too_few_are_counted(whole: Dataset) -> None:
    path = whole.folder / "items.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SourceError, match="40 images but 39 items"):
        Dataset.load(whole.folder)


def test_a_killed_preparation_is_not_taken_for_whole_and_starts_over(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    process = preparing(photographs, out)
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size for part in out.glob(".images.npy.partial")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(SourceError, match="no data folder"):
        Dataset.load(out)

    again = preparing(photographs, out)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert len(Dataset.load(out)) == 400
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "images.npy", "items.jsonl"]


def test_a_full_disk_is_one_clear_error_and_nothing_half_written_stays(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    process = preparing(photographs, out, before=limit)
    _, told = process.communicate()
    assert process.returncode == 1
    assert told.rstrip().splitlines()[-1].startswith(f"error: can't write {out / 'images.npy'}: [Errno 27]")
    assert "Traceback" not in told
    assert list(out.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "images", ["a.png", "b.png"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(SourceError, match=r"the images take 384 bytes, but .*data has only 100 bytes free"):
        prepare(tmp_path / "images", tmp_path / "data", request=Request(image_size=8))
    assert list((tmp_path / "data").iterdir()) == []


_LOAD = """
import resource
from training.data.dataset import Dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = Dataset.load({folder!r})
assert len(data) == 200_000 and data.labels[199_999] == 999 and len(data.rows("test")) == 20_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_loading_takes_megabytes_for_hundreds_of_thousands_of_items(tmp_path: Path) -> None:
    count, classes = 200_000, [f"n{number:08d}" for number in range(1000)]
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (count, 16, 16, 3))
    del images
    with open(tmp_path / "items.jsonl", "w") as file:
        for number in range(count):
            label, split = classes[number % 1000], "train" if number % 10 else "test"
            file.write(json.dumps({"id": f"{label}/{label}_{number}.JPEG", "label": label, "split": split}) + "\n")
    (tmp_path / "dataset.json").write_text(json.dumps({"image_size": 16, "classes": classes}))
    code = _LOAD.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80  # MB: a dict a line takes 150, the images themselves 150
