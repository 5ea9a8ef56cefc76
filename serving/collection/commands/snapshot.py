"""Saving a collection to one file and restoring it, while it is served.

`save` and `restore` work on a folder, for `simclr snapshot` and `simclr restore` with `--collection`. Run as a program
(`python -m serving.collection.commands.snapshot`), this module is the job that a server starts for a snapshot that the
collection keeps by name.

A snapshot is of one moment, whatever is written meanwhile. Restoring replaces everything in the collection in one
transaction and builds the index. Of pictures that stay in their own files, as `simclr ingest` leaves them, a snapshot
has the paths.
"""

import argparse
import errno
import logging
import sys
from pathlib import Path

from core.command_line.command import Command, main
from core.command_line.endings import conclude, counted
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.errors import CatalogueFull, CollectionError, CompactionError, SnapshotError
from serving.collection.snapshots.jobs import Jobs
from serving.collection.snapshots.named import NamedSnapshots

_LOG = logging.getLogger(__name__)


def save(folder: Path, file: Path) -> int:
    """Write the collection in `folder` to `file`, whole or not at all; returns how many items it has.

    Raises `CatalogueError` or OSError.
    """
    return open_catalogue(folder).snapshots.save(file)


def restore(folder: Path, file: Path, *, replace: bool = False) -> int:
    """Give the collection in `folder`, which may be new, the items of `file`; returns how many there are.

    Raises `SnapshotError` if it has items already and `replace` is false, `CatalogueError` for a damaged file.
    """
    catalogue = open_catalogue(folder, create=True)
    if (count := catalogue.items.count()) and not replace:
        raise SnapshotError(f"{folder} has {counted(count, 'item')}; --replace gives them up")
    count = catalogue.snapshots.restore(file)
    _build_indexes(catalogue)
    return count


def _build_indexes(catalogue: Catalogue) -> None:
    from serving.collection.index.faiss.compaction import compact

    for one in catalogue.stats().releases:
        if one.vectors:
            try:
                compact(catalogue, one.release)
            except CompactionError as error:  # it is restored, and searched without a base until there is one
                _LOG.error("the index is not built: %s", error)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--name", required=True, help="the snapshot's name")
    parser.add_argument("--replace", action="store_true", help="give up the items that the collection has")
    parser.add_argument("--job", help="the job's number, if a server began it and handed over the lock")


def _run(given: argparse.Namespace) -> int:
    if given.job is not None:
        return _do(given, given.job)
    jobs = Jobs(given.collection)
    with jobs.alone():
        return _do(given, jobs.begin(given.what, given.name).id)


def _do(given: argparse.Namespace, number: str) -> int:
    """Save or restore by name, alone, and write down how it went."""
    jobs = Jobs(given.collection)
    try:
        count = (_save_named if given.what == "save" else _restore_named)(given)
    except (CollectionError, OSError) as error:
        jobs.end(number, error=_reason(error))
        raise
    jobs.end(number, items=count)
    conclude(f"{given.what} {given.name}: {counted(count, 'item')}")
    return 0


def _save_named(given: argparse.Namespace) -> int:
    return NamedSnapshots(given.collection).save(open_catalogue(given.collection), given.name).items


def _restore_named(given: argparse.Namespace) -> int:
    catalogue = open_catalogue(given.collection)
    file = NamedSnapshots(given.collection).verified(given.name)
    if (count := catalogue.items.count()) and not given.replace:
        raise SnapshotError(f"the collection has {counted(count, 'item')}, and --replace was not given")
    count = catalogue.snapshots.restore(file)
    _build_indexes(catalogue)
    return count


def _reason(error: Exception) -> str:
    """What anyone who asks a server may read: no path of this machine."""
    if isinstance(error, CatalogueFull) or getattr(error, "errno", None) == errno.ENOSPC:
        return "the collection's disk is probably full; all is as it was before"
    if isinstance(error, SnapshotError):
        return str(error)
    return "it failed and all is as it was before; the server's log says why"


COMMAND = Command("snapshot", "Save or restore a snapshot that the collection keeps by name.", _add_arguments, _run)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
