"""The flags of `simclr prepare` for files and known data sets, and the data folder that they ask for.

The command itself is `retraining.prepare_command`: it freezes collections too, which training does not know.
"""

import argparse
from pathlib import Path

from training.data.dataset import Dataset
from training.data.downloads import DATASETS, materialise
from training.data.prepare import Request, prepare


def add_sources(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    """Add the options that say where images come from, one of which must be given; returns their group."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--images", type=Path, metavar="PATH", help="a folder or a zip of image files")
    which.add_argument("--dataset", choices=DATASETS, help="a known data set, downloaded unless a library has it")
    return which


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that hold for every source."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the data folder to write")
    add("--root", type=Path, default=Path("runs/datasets"), metavar="DIR", help="where --dataset is unpacked")
    add("--image-size", type=_pixels, default=0, metavar="PIXELS", help="side of the images, or auto (the default)")
    add("--max-size", type=int, default=224, metavar="PIXELS", help="largest size that auto chooses (%(default)s)")
    add("--seed", type=int, default=0, help="decides what is held out (%(default)s)")
    add("--hold-out", type=float, default=0.1, metavar="SHARE", help="for test, where no split is (%(default)s)")


def request_of(given: argparse.Namespace) -> Request:
    """How the images are to be prepared. Raises ValueError."""
    return Request(given.image_size, given.max_size, seed=given.seed, hold_out=given.hold_out)


def prepare_files(given: argparse.Namespace) -> Dataset:
    """The data folder of --images or --dataset. Raises ValueError and OSError."""
    images = materialise(given.dataset, given.root) if given.dataset else given.images
    return prepare(images, given.out, name=given.dataset or "", request=request_of(given))


def _pixels(text: str) -> int:
    return 0 if text == "auto" else int(text)
