"""`simclr prepare`: images to a data folder, from files, from a known data set, or from a collection as it is now."""

import argparse
import shlex
import sys
from pathlib import Path

from core.command_line.command import Command, main
from core.command_line.endings import conclude, counted
from training.data.dataset import Dataset
from training.data.flags import add_options, add_sources, prepare_files, request_of

_DETAILS = """examples:
  simclr prepare --images photographs.zip --out runs/photographs/data
  simclr prepare --dataset digits --out runs/digits/data
  simclr prepare --collection runs/photographs/collection --out runs/again/data

Labels and splits follow from the folders' names: train, validation and test at the top, and below them, or at the
top, a folder for each label. Without a test split one is held out. A collection has labels of its own, and keeps what
it once held out. A folder that already holds the answer is reused."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    frozen = "a collection folder, frozen as it is now; it may be served meanwhile"
    add_sources(parser).add_argument("--collection", type=Path, metavar="DIR", help=frozen)
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")


def _run(given: argparse.Namespace) -> int:
    data = prepare_files(given) if given.collection is None else _prepare_collection(given)
    facts, size, labels = data.facts, data.image_size, data.classes
    splits = ", ".join(f"{count:,} {split}" for split, count in facts["counts"].items())
    held = f"{counted(len(data), 'image')} of {size}x{size} ({splits})"
    run = Path("runs") / facts["name"] / "pretrain"
    conclude(
        f"{data.folder} holds {facts['name']}: {held}, {counted(len(labels), 'label') if labels else 'no labels'}.",
        then=shlex.join(["simclr", "pretrain", "--data", str(data.folder), "--out", str(run)]),
        as_json=given.json,
        folder=data.folder,
        image_size=size,
        images=len(data),
        counts=facts["counts"],
        labels=labels,
        unreadable=len(facts["unreadable"]),
        digest=data.digest,
    )
    return 0


def _prepare_collection(given: argparse.Namespace) -> Dataset:
    from retraining.frozen import prepare_frozen  # SQLite, which files do without

    return prepare_frozen(given.collection, given.out, request=request_of(given))


COMMAND = Command("prepare", "Decode images into a data folder to learn from.", _add_arguments, _run, details=_DETAILS)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
