"""Small images and small runs for the tests of training."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.dataset import Dataset
from training.data.prepare import Request, prepare
from training.recipe.config import PretrainConfig, override

CIFAR10 = Path(__file__).parents[2].parent / "shared/data/cifar10-images.zip"
LABELS = ("airplane", "automobile", "bird", "cat")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """For models this small, threads only wait for each other on a busy machine; and another number has other bits."""
    torch.set_num_threads(1)  # by module: the tests of serving set what they need


def write_images(folder: Path, names: list[str], *, size: int = 10, seed: int = 0) -> Path:
    """PNG files of noise around a colour that the folder's name decides, so that labels can be learnt."""
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        centre = np.random.default_rng(sum(map(ord, path.parent.name))).integers(40, 215, 3)
        pixels = np.clip(centre + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """96 labelled noise images of 8 px, in three labels."""
    root = tmp_path_factory.mktemp("coloured")
    names = [f"{label}/{number:02d}.png" for label in ("blue", "red", "sand") for number in range(32)]
    write_images(root / "images", names)
    return prepare(root / "images", root / "data", request=Request(image_size=8))


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """400 real CIFAR-10 images of four labels (75 train and 25 test of each), at 16 px, from a zip."""
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is absent")
    root = tmp_path_factory.mktemp("cifar")
    with zipfile.ZipFile(CIFAR10) as source, zipfile.ZipFile(root / "some.zip", "w") as target:
        members = source.namelist()
        for split, count in (("train", 75), ("test", 25)):
            for label in LABELS:
                below = f"cifar10/{split}/{label}/"
                for name in [member for member in members if member.startswith(below)][:count]:
                    target.writestr(name, source.read(name))
    return prepare(root / "some.zip", root / "data", request=Request(image_size=16))


@pytest.fixture
def tiny() -> Callable[..., PretrainConfig]:
    """A run of seconds: ResNet-18, 4 epochs, batch 16, fp32; dotted keys override (with __ for the dot)."""

    def make(**changes: object) -> PretrainConfig:
        base = {
            "encoder.architecture": "resnet18",
            "encoder.stem": "small_stride2",
            "head.hidden": 32,
            "head.out": 16,
            "optimiser.warmup_epochs": 1,
            "batch_size": 16,
            "epochs": 4,
            "precision": "fp32",
        }
        return override(PretrainConfig(), base | {key.replace("__", "."): v for key, v in changes.items()})

    return make
