"""Snapshots of a collection as one file, made and restored while it is served.

`python -m serving.snapshot save    --collection runs/digits/collection digits.sqlite`
`python -m serving.snapshot restore --collection runs/digits/collection digits.sqlite`

A snapshot is of one moment, however much is written meanwhile. Restoring replaces everything in the collection in one
transaction and builds the index. Pictures that stay in their files, as `serving.ingest` leaves them, are there by path.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.collection.catalogue import Catalogue
from serving.collection.compaction import compact
from serving.collection.errors import CollectionError
from serving.collection.snapshots import restore_snapshot, save_snapshot


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.snapshot", description="A collection in one file.")
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--replace", action="store_true", help="restore into a collection that has items")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        return _save(given) if given.what == "save" else _restore(given)
    except (CollectionError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _save(given: argparse.Namespace) -> int:
    count = save_snapshot(Catalogue(given.collection), given.file)
    print(f"{given.file}: {count} items, {given.file.stat().st_size} bytes")
    return 0


def _restore(given: argparse.Namespace) -> int:
    catalogue = Catalogue(given.collection, create=True)
    if (count := catalogue.count()) and not given.replace:
        print(f"error: {given.collection} has {count} items; --replace gives them up", file=sys.stderr)
        return 1
    count = restore_snapshot(given.file, given.collection)
    for release in [one.release for one in catalogue.stats().releases if one.vectors]:
        compact(catalogue, release)
    print(f"{given.collection}: {count} items")
    return 0


if __name__ == "__main__":
    sys.exit(main())
