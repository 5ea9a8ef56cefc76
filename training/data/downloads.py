"""The sets that libraries carry, written once as an ordinary folder of PNG files: train and test, then label.

Written under a temporary name and renamed, so a folder that exists is complete. Digits come inside
scikit-learn; CIFAR-10, CIFAR-100 and STL-10 are downloaded by torchvision, which checks their digests.
STL-10's 100,000 unlabelled images are left out: a set is labelled whole or not at all.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from core.images.folders import SourceError
from training.data.splits import TEST, TRAIN, held_out

DATASETS = {"digits": 1_797, "cifar10": 60_000, "cifar100": 60_000, "stl10": 13_000}  # how many images
_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "stl10": "STL10"}
_DIGITS_TEST_SHARE = 0.2

Labelled = tuple[str, str, NDArray[np.uint8]]  # split, label, image (H, W, 3)


def materialise(name: str, root: Path) -> Path:
    """Write the set called `name` as `root/name/{train,test}/<label>/NNNNN.png`, once; returns root/name.

    Raises ValueError for an unknown name, `SourceError` for a broken download, OSError for none.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}; accepted: {', '.join(DATASETS)}")
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        items = _digits() if name == "digits" else _torchvision(name, root / "downloads")
        bar = tqdm(items, total=DATASETS[name], desc=f"writing {name}", unit=" images")
        for number, (split, label, image) in enumerate(bar):
            file = temporary / split / label / f"{number:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
        temporary.chmod(0o755)
        temporary.rename(target)
    except RuntimeError as error:  # torchvision's, of a download that is broken
        raise SourceError(f"{name} can't be downloaded: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _digits() -> Iterator[Labelled]:
    from sklearn.datasets import load_digits  # two seconds, which only this data set costs

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    test = set(held_out(data.target.astype(np.int64), _DIGITS_TEST_SHARE, seed=0).tolist())
    for row, (image, label) in enumerate(zip(grey, data.target, strict=True)):
        yield TEST if row in test else TRAIN, str(label), np.repeat(image[:, :, None], 3, axis=2)


def _torchvision(name: str, root: Path) -> Iterator[Labelled]:
    import torchvision  # here, as it brings all of torch, which digits can do without

    for split in (TRAIN, TEST):
        which = {"split": split} if name == "stl10" else {"train": split == TRAIN}
        images = getattr(torchvision.datasets, _TORCHVISION[name])(str(root), download=True, **which)
        for image, label in images:
            yield split, images.classes[label], np.asarray(image.convert("RGB"))
