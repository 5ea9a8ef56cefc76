"""The sets that libraries carry: digits as they are, CIFAR-10 through torchvision's real download."""

import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from sklearn.datasets import load_digits

from core.images.folders import SourceError
from training.data.downloads import materialise

LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def test_digits_are_scikit_learns_own(tmp_path: Path) -> None:
    root = materialise("digits", tmp_path)
    files = sorted(root.rglob("*.png"), key=lambda path: path.name)
    digits = load_digits()
    assert len(files) == len(digits.target) == 1797
    assert [int(file.parent.name) for file in files] == digits.target.tolist()
    first = np.asarray(Image.open(files[0]))
    assert (first[..., 0] == np.rint(digits.images[0] * 255 / 16)).all()
    assert materialise("digits", tmp_path) == root


def member(archive: tarfile.TarFile, name: str, content: object) -> tuple[str, str]:
    """Add a pickled file as CIFAR-10 has them; its name and MD5, as torchvision lists them."""
    data = pickle.dumps(content)
    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
    return name, hashlib.md5(data).hexdigest()


@pytest.fixture
def served_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[np.ndarray]:
    """A small archive in CIFAR-10's own format, on a server of ours, where torchvision is told to look."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    path = tmp_path / "served/cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        flat = pixels.reshape(6, -1)
        train = member(archive, "data_batch_1", {"data": flat[:4], "labels": [0, 3, 3, 9]})
        test = member(archive, "test_batch", {"data": flat[4:], "labels": [3, 5]})
        meta = member(archive, "batches.meta", {"label_names": LABELS})
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = torchvision.datasets.CIFAR10
    monkeypatch.setattr(known, "url", f"http://127.0.0.1:{server.server_port}/{path.name}")
    monkeypatch.setattr(known, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setattr(known, "train_list", [list(train)])
    monkeypatch.setattr(known, "test_list", [list(test)])
    monkeypatch.setattr(known, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    yield pixels
    server.shutdown()
    server.server_close()


def test_cifar10_is_downloaded_and_written_as_files(served_cifar10: np.ndarray, tmp_path: Path) -> None:
    root = materialise("cifar10", tmp_path / "sets")
    files = {path.relative_to(root).as_posix(): np.asarray(Image.open(path)) for path in root.rglob("*.png")}
    assert set(files) == {
        *("train/airplane/00000.png", "train/cat/00001.png", "train/cat/00002.png", "train/truck/00003.png"),
        *("test/cat/00004.png", "test/dog/00005.png"),
    }
    assert (files["test/dog/00005.png"] == served_cifar10[5].transpose(1, 2, 0)).all()


def test_a_broken_download_leaves_no_set_behind(
    served_cifar10: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(SourceError, match="not found or corrupted"):
        materialise("cifar10", tmp_path / "sets")
    assert not (tmp_path / "sets/cifar10").exists()


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset is 'mnist'; accepted: digits, cifar10"):
        materialise("mnist", tmp_path)
