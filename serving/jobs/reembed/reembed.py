"""Fill an embedding space of a collection: embed every item that lacks a vector of it, while it is served, too.

The exported file does the embedding, so what is stored is what a server computes. Progress is in the catalogue, so any
number of tasks and copies share the work. What is written meanwhile, by whichever release, is embedded as well.
"""

import logging
from dataclasses import dataclass

import faiss

from core.machine.machine import usable_cores
from core.releases.manifest import Release
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Part
from serving.collection.index.faiss.compaction import compact, wait_for_another
from serving.jobs.parallel.crew import Crew
from serving.jobs.parallel.progress import progress_bar
from serving.jobs.parallel.seats import seats
from serving.jobs.parallel.tasks import Task
from serving.jobs.reembed.errors import RESUME
from serving.jobs.reembed.worker import Post, work
from serving.operations.catching_up import filling_lock

_PARTS = 4  # for each process, so that a slow one does not keep the others waiting
_FEW = 1000  # items: a worker that begins embeds them before its first search, within seconds
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assignment:
    """Who fills the space of `release`: one task of some, with `processes` (None: what suits)."""

    release: Release
    task: Task
    form: str = "auto"
    processes: int | None = None

    @property
    def space(self) -> str:
        """The space to fill."""
        return self.release.space

    @property
    def share(self) -> Part:
        """The items that are this task's."""
        return Part(self.task.index, self.task.count)


def reembed(catalogue: Catalogue, assignment: Assignment) -> None:
    """Embed the task's share of what waits; raises `WorkError` if a process fails."""
    _pass(catalogue, assignment)
    if assignment.task.count == 1:  # of several, none knows whether the others have begun
        while (waiting := _left(catalogue, assignment.space)) is not None:
            _LOG.info("%d more items wait since then", waiting)
            _pass(catalogue, assignment)
    catalogue.spaces.settle(assignment.space)


def build_index(catalogue: Catalogue, space: str) -> str | None:
    """Build the base and describe it; None if another task has still to fill the space, or nothing is in it."""
    found = catalogue.spaces.get(space)
    if found is None or not found.complete:
        return None
    faiss.omp_set_num_threads(usable_cores())
    while not compact(catalogue, space):
        wait_for_another(catalogue.folder)
    base = catalogue.bases.get(space)
    if base is None:
        return None
    return f"{base.kind} of {base.count}, recall@10 {base.recall:.3f}, {base.facts['seconds']} s"


def _left(catalogue: Catalogue, space: str) -> int | None:
    """How many items wait, if those are too many for the space to be complete; None if it is, or was closed."""
    catalogue.spaces.settle_but(space, _FEW)  # this alone decides: what counted before it could be overtaken by a write
    found = catalogue.spaces.get(space)
    return None if found is None or found.complete else found.pending


def _pass(catalogue: Catalogue, assignment: Assignment) -> None:
    """Embed what waits now, and what is written meanwhile if that comes early enough."""
    waiting = catalogue.spaces.count_pending(assignment.space, assignment.share)
    posts = _posts(catalogue, assignment, waiting)
    with (
        filling_lock(catalogue.folder, assignment.space, shared=True),
        Crew(posts, work, again=RESUME) as crew,
        progress_bar(waiting) as bar,
    ):
        # the items of a task are those whose row is its index, modulo the tasks; its parts divide these further
        parts = assignment.task.pieces(posts[0].parts) if posts else ()
        for images in crew.work(parts):
            bar.update(images)


def _posts(catalogue: Catalogue, assignment: Assignment, waiting: int) -> list[Post]:
    places = seats(assignment.task, processes=assignment.processes, most=waiting)
    parts = assignment.task.count * len(places) * _PARTS
    return [Post(catalogue.folder, assignment.release.folder, assignment.form, parts, seat) for seat in places]
