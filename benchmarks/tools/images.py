"""The images of a benchmark: a data folder that exists, or one prepared from a folder or a zip of image files.

Downloads are for `simclr prepare --dataset`, which writes a data folder.
"""

import argparse
from pathlib import Path

from training.data.dataset import Dataset
from training.data.prepare import Request, prepare


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """--data or --images, one of which is required, and --image-size."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--data", type=Path, help="a data folder (simclr prepare)")
    which.add_argument("--images", type=Path, help="a folder or a zip of image files")
    parser.add_argument("--image-size", type=int, default=0, help="pixels, for --images (default: chosen by them)")


def open_images(options: argparse.Namespace, out: Path) -> Dataset:
    """The data set that the arguments name; --images is prepared in `out`/data. Raises `SourceError`."""
    if options.data is not None:
        return Dataset.load(options.data)
    return prepare(options.images, out / "data", request=Request(image_size=options.image_size))
