"""Snapshots of a collection as one file, made and restored while it is served.

`python -m serving.snapshot save    --collection runs/digits/collection digits.sqlite`
`python -m serving.snapshot restore --collection runs/digits/collection digits.sqlite`
`python -m serving.snapshot list    --collection runs/digits/collection`

A snapshot is of one moment, however much is written meanwhile. Restoring replaces everything in the collection in one
transaction and builds the index. Pictures that stay in their files, as `serving.jobs.ingest` leaves them, are there by
path. With `--name` instead of a file, the collection keeps it in its own folder, as a server does that is asked for
one. Left out: asking a server (`python -m serving.client snapshot`).
"""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw

from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.errors import CollectionError, CompactionError, SnapshotError
from serving.collection.index.faiss.compaction import compact
from serving.collection.snapshots.file import restore_snapshot, save_snapshot
from serving.collection.snapshots.jobs import Jobs
from serving.collection.snapshots.named import Snapshots

_LOG = logging.getLogger(__name__)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.snapshot", description="A collection in one file.")
    parser.add_argument("what", choices=("save", "restore", "list", "remove"))
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--name", help="instead of FILE: the collection keeps the snapshot under this name")
    parser.add_argument("--replace", action="store_true", help="restore into a collection that has items")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # begun by a server, which hands over the lock
    given = parser.parse_intermixed_args(arguments)  # FILE may stand behind --collection
    named = {"save": 1, "restore": 1, "list": 0, "remove": 1}[given.what]
    if (given.file is not None) + (given.name is not None) != named or (given.what == "remove" and given.file):
        parser.error(f"{given.what} takes " + ("FILE or --name" if given.what != "remove" else "--name") * named)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        if given.what == "list":
            return _list(given.collection)
        if given.name is None:
            return _save(given) if given.what == "save" else _restore(given)
        if given.job is not None:
            return _job(given, given.job)
        with Jobs(given.collection).alone():
            if given.what == "remove":
                Snapshots(given.collection).remove(given.name)
                return 0
            return _job(given, Jobs(given.collection).begin(given.what, given.name).id)
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
    for release in _releases(catalogue):
        compact(catalogue, release)
    print(f"{given.collection}: {count} items")
    return 0


def _list(folder: Path) -> int:
    for kept in Snapshots(folder).listed():
        print(f"{kept.name}: {kept.items} items, {kept.bytes} bytes, {Snapshots(folder).folder / kept.file}")
    return 0


def _job(given: argparse.Namespace, number: str) -> int:
    """Save or restore by name, alone, and write down how it went."""
    jobs = Jobs(given.collection)
    try:
        count = (_save_named if given.what == "save" else _restore_named)(given)
    except (CollectionError, OSError) as error:
        jobs.end(number, error=_reason(error))
        raise
    jobs.end(number, items=count)
    print(f"{given.what} {given.name}: {count} items")
    return 0


def _save_named(given: argparse.Namespace) -> int:
    return Snapshots(given.collection).save(Catalogue(given.collection), given.name).items


def _restore_named(given: argparse.Namespace) -> int:
    catalogue = Catalogue(given.collection)
    file = Snapshots(given.collection).verified(given.name)
    if (count := catalogue.count()) and not given.replace:
        raise SnapshotError(f"the collection has {count} items, and --replace was not given")
    count = restore_snapshot(file, given.collection)
    for release in _releases(catalogue):
        try:
            compact(catalogue, release)
        except CompactionError as error:  # it is restored, and searched without a base until there is one
            _LOG.error("the index is not built: %s", error)
    return count


def _releases(catalogue: Catalogue) -> list[str]:
    return [one.release for one in catalogue.stats().releases if one.vectors]


def _reason(error: Exception) -> str:
    """What whoever asked a server may read: no path of this machine."""
    cause = error.__cause__
    if isinstance(cause, apsw.FullError | apsw.IOError) or getattr(error, "errno", None) == errno.ENOSPC:
        return "the collection's disk is probably full; all is as it was before"
    if isinstance(error, SnapshotError):
        return str(error)
    return "it failed and all is as it was before; the server's log says why"


if __name__ == "__main__":
    sys.exit(main())
