"""Embed a collection's items with another release."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from core.command_line.command import Command, main
from core.command_line.endings import conclude, counted, first_few
from core.releases.model_store import find_release
from serving.jobs.parallel.arguments import add_arguments
from serving.jobs.parallel.tasks import WorkError, task_of
from serving.jobs.reembed.errors import RESUME

if TYPE_CHECKING:
    from serving.collection.catalogue.interface import Catalogue
    from serving.collection.catalogue.spaces import Space
    from serving.jobs.reembed.reembed import Assignment

_DETAILS = """\
simclr reembed --release model_store/digits/4 --collection runs/digits/collection --index

Killed and run again it goes on; several tasks or copies share the work. What is written meanwhile is embedded as well.
Images that are gone or can't be decoded are listed and stop nothing; --retry tries them again. An image that is out of
reach, as on a disk that is not mounted, ends the command with an error.

Exit code 0 means that this task's share is done. For a single task it also means that the space is complete; the last
few writes may still wait, which the first worker to search embeds.
"""
_NICENESS = 10
_REASONS_SHOWN = 10


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--collection", type=Path, required=True, metavar="DIR", help="folder of the collection")
    add("--index", action="store_true", help="build the index once the space is complete")
    add("--retry", action="store_true", help="try those images again that could not be read or decoded")
    add("--nice", action="store_true", help="yield the cores to other processes")
    add_arguments(parser)


def _run(given: argparse.Namespace) -> int:
    from serving.collection.catalogue.opening import open_catalogue  # SQLite, FAISS and the runtime
    from serving.jobs.reembed.reembed import Assignment, build_index, reembed

    if given.nice:
        os.nice(_NICENESS)
    task = task_of(given.task_index, given.task_count, os.environ)
    assignment = Assignment(find_release(given.release), task, given.form, given.processes)
    catalogue = open_catalogue(given.collection)
    catalogue.spaces.open(assignment.space)
    if given.retry:
        catalogue.spaces.retry_failed(assignment.space, assignment.share)
    reembed(catalogue, assignment)
    index = build_index(catalogue, assignment.space) if given.index else None
    _report(catalogue, assignment, index, as_json=given.json)
    return 0


def _report(catalogue: "Catalogue", assignment: "Assignment", index: str | None, *, as_json: bool) -> None:
    """Say what there is now; raises `WorkError` if that is no success."""
    space = catalogue.spaces.get(assignment.space)
    if space is None:
        raise WorkError(f"the space {assignment.space[:16]} was closed meanwhile")
    vectors = len(catalogue.vectors.census(space.release).rows)
    reasons = catalogue.spaces.failures(space.release, limit=space.failed)
    for line in first_few((f"left out {name}: {reason}" for name, reason in reasons.items()), _REASONS_SHOWN):
        print(line, file=sys.stderr)
    manifest, store = assignment.release.manifest, assignment.release.folder.parent.parent
    conclude(
        f"{catalogue.folder}: {vectors:,} vectors by {manifest.title}, {counted(space.failed, 'item')} unreadable, "
        f"{_state(space)}" + (f"\nindex: {index}" if index else ""),
        then=f"simclr releases promote {manifest.version} --store {store} --name {manifest.name}"
        if space.complete
        else "",
        as_json=as_json,
        release=manifest.title,
        vectors=vectors,
        unreadable=space.failed,
        waiting=space.pending,
        complete=space.complete,
        index=index,
    )
    if space.failed and not vectors:
        raise WorkError("none of the items can be read; once they can, give --retry")
    if assignment.task.count == 1 and not space.complete:  # another may have reopened it
        raise WorkError(
            f"{counted(space.pending, 'item')} wait again since this command was through with them; {RESUME}"
        )


def _state(space: "Space") -> str:
    waiting = f", {space.pending:,} written meanwhile" if space.pending else ""
    return f"complete{waiting}" if space.complete else f"not complete: {counted(space.pending, 'item')} wait"


COMMAND = Command(
    "reembed",
    "Embed a collection's items with another release.",
    _add_arguments,
    _run,
    details=_DETAILS,
    errors=(WorkError,),
    resume=RESUME,
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
