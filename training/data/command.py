"""`simclr prepare`: images to a data folder.

`retraining.prepare_command` is the same with collections, which training does not know.
"""

import argparse
import shlex
import sys
from pathlib import Path

from core.command_line.command import Command, main
from core.command_line.endings import conclude, counted
from training.data.dataset import Dataset
from training.data.downloads import DATASETS, materialise
from training.data.prepare import Request, prepare

SUMMARY = "Decode images into a data folder to learn from."
DETAILS = """examples:
  simclr prepare --images photographs.zip --out runs/photographs/data
  simclr prepare --dataset digits --out runs/digits/data

Labels and splits follow from the folders' names: train, validation and test at the top, and below them, or at the
top, a folder for each label. Without a test split one is held out. A folder that already holds the answer is reused."""


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
    add("--seed", type=int, default=0, help="of what is held out (%(default)s)")
    add("--hold-out", type=float, default=0.1, metavar="SHARE", help="for test, if no split is (%(default)s)")
    add("--json", action="store_true", help="print the result as one line of JSON")


def request_of(given: argparse.Namespace) -> Request:
    """How the images are to be prepared. Raises ValueError."""
    return Request(given.image_size, given.max_size, seed=given.seed, hold_out=given.hold_out)


def prepare_files(given: argparse.Namespace) -> Dataset:
    """The data folder of --images or --dataset."""
    images = materialise(given.dataset, given.root) if given.dataset else given.images
    return prepare(images, given.out, name=given.dataset or "", request=request_of(given))


def conclude_with(data: Dataset, *, as_json: bool) -> int:
    """Say what the data folder holds; returns the exit code."""
    facts, size, labels = data.facts, data.image_size, data.classes
    splits = ", ".join(f"{count:,} {split}" for split, count in facts["counts"].items())
    words = f"{counted(len(data), 'image')} of {size}x{size} ({splits}), "
    conclude(
        f"{data.folder} holds {facts['name']}: {words}{counted(len(labels), 'label') if labels else 'no labels'}.",
        then=shlex.join(["simclr", "pretrain", "--data", str(data.folder), "--out", f"runs/{facts['name']}/pretrain"]),
        as_json=as_json,
        folder=data.folder,
        image_size=size,
        images=len(data),
        counts=facts["counts"],
        labels=labels,
        unreadable=len(facts["unreadable"]),
        digest=data.digest,
    )
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    add_options(parser)


def _run(given: argparse.Namespace) -> int:
    return conclude_with(prepare_files(given), as_json=given.json)


def _pixels(text: str) -> int:
    return 0 if text == "auto" else int(text)


COMMAND = Command("prepare", SUMMARY, _add_arguments, _run, details=DETAILS)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
