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
from serving.collection.snapshots.jobs import Job, Jobs, What
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


def by_name(what: What, folder: Path, name: str, *, replace: bool = False) -> int:
    """Save or restore a snapshot that the collection keeps by name, as a server does; returns how many items it has.

    Raises `CollectionError` or OSError; the journal has what went wrong.
    """
    jobs = Jobs(folder)
    with jobs.alone():
        return _do(what, folder, jobs.begin(what, name), replace=replace)


def _do(what: What, folder: Path, job: Job, *, replace: bool) -> int:
    """Do the job, alone, and record how it went."""
    try:
        items = _save_named(folder, job.name) if what == "save" else _restore_named(folder, job.name, replace=replace)
    except (CollectionError, OSError) as error:
        Jobs(folder).end(job.id, error=_reason(error))
        raise
    Jobs(folder).end(job.id, items=items)
    return items


def _save_named(folder: Path, name: str) -> int:
    return NamedSnapshots(folder).save(open_catalogue(folder), name).items


def _restore_named(folder: Path, name: str, *, replace: bool) -> int:
    catalogue = open_catalogue(folder)
    file = NamedSnapshots(folder).verified(name)
    if (count := catalogue.items.count()) and not replace:
        raise SnapshotError(f"the collection has {counted(count, 'item')}, and --replace was not given")
    items = catalogue.snapshots.restore(file)
    _build_indexes(catalogue)
    return items


def _build_indexes(catalogue: Catalogue) -> None:
    from serving.collection.index.faiss.compaction import compact

    for one in catalogue.stats().releases:
        if one.vectors:
            try:
                compact(catalogue, one.release)
            except CompactionError as error:  # it is restored, and searched without a base until there is one
                _LOG.error("the index is not built: %s", error)


def _reason(error: Exception) -> str:
    """What anyone who asks a server may read: no path of this machine."""
    if isinstance(error, CatalogueFull) or getattr(error, "errno", None) == errno.ENOSPC:
        return "the collection's disk is probably full; all is as it was before"
    if isinstance(error, SnapshotError):
        return str(error)
    return "it failed and all is as it was before; the server's log says why"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("save", "restore"))
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--name", required=True, help="the snapshot's name")
    parser.add_argument("--replace", action="store_true", help="give up the items that the collection has")
    parser.add_argument("--job", help="the number of the job, if a server began it and handed over the lock")


def _run(given: argparse.Namespace) -> int:
    if given.job is None:
        items = by_name(given.what, given.collection, given.name, replace=given.replace)
    else:
        items = _do(given.what, given.collection, Jobs(given.collection).begun(given.job), replace=given.replace)
    conclude(f"{given.what} {given.name}: {counted(items, 'item')}")
    return 0


COMMAND = Command("snapshot", "Save or restore a snapshot that the collection keeps by name.", _add_arguments, _run)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
