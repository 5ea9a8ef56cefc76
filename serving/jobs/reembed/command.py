"""Fill a collection's embedding space with a release: embed what lacks a vector of it. While it is served, too.

    python -m serving.reembed --release model_store/digits/4 --collection runs/digits/collection --index

The exported file does the embedding, so what is stored is what a server computes. Progress is in the catalogue: killed
and run again it goes on; several tasks (`serving.jobs.parallel.tasks`) or copies share the work. What is written
meanwhile, by whichever release, is embedded as well. Pictures that are gone or can't be decoded are told and block
nothing;
--retry tries them again. One that is out of reach, as on a disk that is not mounted, ends the command with an error.
Exits with 0 when this task's share is done: of a single task, when the space is complete, which it is too if what waits
are some last writes that the first worker to search embeds.
Left out: making the release serve (`export.store promote`), and giving up an old space
(`serving.collection.commands.spaces`).
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
from tqdm import tqdm

from core.machine.machine import usable_cores
from core.releases.manifest import ManifestError, Release
from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.catalogue.sqlite.spaces import Part, Space
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.compaction import compact, wait_for_another
from serving.inference.choice import FORMS
from serving.jobs.parallel.crew import Crew
from serving.jobs.parallel.resumable import positive, run_resumable
from serving.jobs.parallel.seats import seats
from serving.jobs.parallel.tasks import Task, WorkError, task_of
from serving.jobs.reembed.worker import AGAIN, Post, work
from serving.operations.catching_up import filling_lock

_PARTS = 4  # for each process, so that a slow one does not keep the others waiting
_POLITE = 10
_FEW = 1000  # items: a worker that begins embeds them before its first search, within seconds
_REASONS_SHOWN = 10
_LOG_SECONDS = 30.0  # between progress lines where nobody watches


@dataclass(frozen=True)
class _Asked:
    """What the command is to do: fill `space` with the release, as one task of some."""

    given: argparse.Namespace
    task: Task
    space: str

    @property
    def share(self) -> Part:
        """Which of the items are this task's."""
        return Part(self.task.index, self.task.count)


def reembed(catalogue: Catalogue, asked: _Asked) -> None:
    """Embed this task's share of what waits; raises `WorkError` if a process fails."""
    _pass(catalogue, asked)
    if asked.task.count == 1:  # of several, none knows whether the others have begun
        while (waiting := _left(catalogue, asked.space)) is not None:
            print(f"{waiting} came to wait meanwhile", file=sys.stderr)
            _pass(catalogue, asked)
    catalogue.settle(asked.space)


def _left(catalogue: Catalogue, space: str) -> int | None:
    """How many items wait, if those are too many for the space to be complete; None if it is, or was closed."""
    catalogue.settle_but(space, _FEW)  # this alone decides: what counted before it could be overtaken by a write
    found = catalogue.space(space)
    return None if found is None or found.complete else found.pending


def _pass(catalogue: Catalogue, asked: _Asked) -> None:
    """Embed what waits now, and what is written while it lasts where that comes early enough."""
    waiting = catalogue.count_pending(asked.space, asked.share)
    posts = _posts(asked, waiting)
    watched = sys.stderr.isatty()
    with (
        filling_lock(catalogue.folder, asked.space, shared=True),
        Crew(posts, work, again=AGAIN) as crew,
        tqdm(total=waiting, desc="embed", unit=" images", mininterval=0.1 if watched else _LOG_SECONDS) as bar,
    ):
        # the items of a task are those whose row is its index, modulo the tasks; its parts divide these further
        parts = asked.task.pieces(posts[0].parts) if posts else ()
        for images in crew.work(parts):
            bar.update(images)


def _posts(asked: _Asked, waiting: int) -> list[Post]:
    given = asked.given
    places = seats(asked.task, processes=given.processes, most=waiting)
    parts = asked.task.count * len(places) * _PARTS
    return [Post(given.collection, given.release, given.form, parts, seat) for seat in places]


def _report(catalogue: Catalogue, release: Release, task: Task) -> int:
    """Say what there is now; returns the exit code."""
    space = catalogue.space(release.space)
    if space is None:
        print(f"error: the space {release.space[:16]} was closed meanwhile", file=sys.stderr)
        return 1
    vectors = len(catalogue.census(release.space).rows)
    for name, reason in catalogue.failures(release.space, limit=_REASONS_SHOWN).items():
        print(f"left out {name}: {reason}", file=sys.stderr)
    if space.failed > _REASONS_SHOWN:
        print(f"(and {space.failed - _REASONS_SHOWN} more)", file=sys.stderr)
    print(
        f"{catalogue.folder}: {vectors} vectors by {release.manifest.title}, {space.failed} items unreadable, "
        f"{_state(space)}"
    )
    if space.failed and not vectors:
        print("error: none of the items can be read; once they can, give --retry", file=sys.stderr)
        return 1
    if task.count == 1 and not space.complete:  # others may have items tried again, or have closed and opened it
        print(
            f"error: {space.pending} items wait again since this command was through with them; {AGAIN}",
            file=sys.stderr,
        )
        return 1
    return 0


def _state(space: Space) -> str:
    waiting = f", {space.pending} written meanwhile" if space.pending else ""
    return f"complete{waiting}" if space.complete else f"not complete: {space.pending} items wait"


def _build_index(catalogue: Catalogue, space: str) -> None:
    """Build the base, unless another task is still to fill the space."""
    found = catalogue.space(space)
    if found is None or not found.complete:
        return
    faiss.omp_set_num_threads(usable_cores())
    while not compact(catalogue, space):
        wait_for_another(catalogue.folder)
    if (base := catalogue.base(space)) is not None:
        print(f"index: {base.kind} of {base.count}, recall@10 {base.recall:.3f}, {base.facts['seconds']} s")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.reembed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--release", type=Path, required=True, help="folder of the release that embeds")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--processes", type=positive, help="worker processes (default: one a GPU, else one a core)")
    parser.add_argument("--form", choices=FORMS, default="auto", help="which file of the release (default: what suits)")
    parser.add_argument("--task-index", type=int, help="which of several tasks this is (default: SLURM's, torchrun's)")
    parser.add_argument("--task-count", type=int, help="how many tasks there are")
    parser.add_argument("--index", action="store_true", help="build the index once the space is complete")
    parser.add_argument("--retry", action="store_true", help="try those again that could not be read or decoded")
    parser.add_argument("--nice", action="store_true", help="yield the cores to others")
    return parser.parse_args(arguments)


def _run(given: argparse.Namespace) -> int:
    if given.nice:
        os.nice(_POLITE)
    release = Release(given.release)
    asked = _Asked(given, task_of(given.task_index, given.task_count, os.environ), release.space)
    catalogue = Catalogue(given.collection)
    catalogue.open_space(release.space)
    if given.retry:
        catalogue.retry_failed(release.space, asked.share)
    reembed(catalogue, asked)
    if given.index:
        _build_index(catalogue, release.space)
    return _report(catalogue, release, asked.task)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    return run_resumable(lambda: _run(given), told=(WorkError, CollectionError, ManifestError, OSError), again=AGAIN)


if __name__ == "__main__":
    sys.exit(main())
