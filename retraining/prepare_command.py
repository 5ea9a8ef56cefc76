"""`simclr prepare` as people have it: what `training.data.command` does, and a collection frozen as a data folder."""

import argparse
import sys
from pathlib import Path

from core.command_line.command import Command, main
from training.data.command import DETAILS, SUMMARY, add_options, add_sources, conclude_with, prepare_files, request_of

_EXAMPLE = "  simclr prepare --collection runs/photographs/collection --out runs/again/data\n"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    which = add_sources(parser)
    which.add_argument(
        "--collection", type=Path, metavar="DIR", help="a collection folder, as it is now; it may be served meanwhile"
    )
    add_options(parser)


def _run(given: argparse.Namespace) -> int:
    if given.collection is None:
        return conclude_with(prepare_files(given), as_json=given.json)
    from retraining.frozen import prepare_frozen

    data = prepare_frozen(given.collection, given.out, request=request_of(given))
    return conclude_with(data, as_json=given.json)


COMMAND = Command("prepare", SUMMARY, _add_arguments, _run, details=DETAILS.replace("\n\n", f"\n{_EXAMPLE}\n", 1))

if __name__ == "__main__":
    sys.exit(main(COMMAND))
