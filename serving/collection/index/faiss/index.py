"""The FAISS index as one worker serves it: every search sees every write that was acknowledged before it.

Before a batch of searches the worker asks the catalogue for what was written since, by sequence number, whichever
process wrote it. A new base that the catalogue names is opened and checked in the background, and taken over between
two batches; until then the old one goes on, kept up to date as well. The score is cosine similarity: the inner product
of unit-norm embeddings.
"""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.errors import ChangesForgotten, IndexUnusable
from serving.collection.index.faiss.mapped_base import MappedBase, open_base
from serving.collection.index.faiss.searching import few_rows_of, search_view
from serving.collection.index.faiss.view import View
from serving.collection.index.interface import Capabilities, Sizes, check_numbers, check_queries
from serving.collection.index.scoring import Found

_log = logging.getLogger(__name__)
_ALL_IN_DELTA: dict[str, Any] = {"kind": "exact", "recall_at_10": 1.0}  # without a base, everything is compared


class FaissIndex:
    """The vectors of one release, ready to search. Threads may share it; they take turns."""

    def __init__(self, catalogue: Catalogue, release: str, *, few_rows: int | None = None) -> None:
        """Map the base that the catalogue names, if any. Raises `IndexUnusable` if it is missing or damaged.

        Up to `few_rows` rows, a filter's matches are compared in full (default: as long as that is cheaper).
        """
        self._catalogue = catalogue
        self._release = release
        self._few_rows = few_rows
        self._lock = threading.RLock()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="open-base")
        self._opening: tuple[BaseRecord, Future[MappedBase]] | None = None
        self._view = View(_open_named(catalogue, release))
        self.refresh()

    def __len__(self) -> int:
        return self._view.sizes.live

    @property
    def sizes(self) -> Sizes:
        """How many vectors there are, as of the last refresh."""
        return self._view.sizes

    @property
    def _few(self) -> int:
        return self._few_rows if self._few_rows is not None else few_rows_of(self._view.base)

    @property
    def base(self) -> BaseRecord | None:
        """The base in use."""
        return self._view.base.record if self._view.base is not None else None

    @property
    def capabilities(self) -> Capabilities:
        """What it can do just now; its kind changes with its base."""
        approximate = self._view.base is not None and self._view.base.kind.approximate
        return Capabilities(
            approximate=approximate,
            depth=approximate,
            few_rows=self._few,
            several_processes=True,
            elsewhere=False,
            shared_memory=True,
            of_one_moment=True,
            compacts_here=True,
        )

    @property
    def facts(self) -> dict[str, Any]:
        """The base's kind, the recall measured when it was built, and how deep it is searched."""
        base = self.base
        return _ALL_IN_DELTA if base is None else {"kind": base.kind, "recall_at_10": base.recall, **base.facts}

    def refresh(self, *, wait: bool = False) -> None:
        """Take over everything committed by now; with `wait`, also a new base that is still being opened.

        Raises `IndexUnusable` if a base is damaged without which it can't go on.
        """
        with self._lock, self._catalogue.reading():
            now = self._catalogue.bases.position(self._release)
            if now.file != self._base_file:
                self._change_base(wait=wait)
            elif self._view.base is not None and now.depth not in (None, self._view.base.depth):
                self._view.base.record = self._catalogue.bases.get(self._release) or self._view.base.record
            if now.seq != self._view.seq:
                self._catch_up()

    def search(
        self, queries: Vectors, k: int, *, rows: Rows | None = None, exact: bool = False, depth: int | None = None
    ) -> Found:
        """The `k` rows of highest cosine similarity to each query (Q, D), unit norm; fewer where there are fewer.

        `rows` are the only ones allowed, in any order; `exact` compares every vector, however long that takes.
        `depth` is how deep an approximate base is searched (efSearch of a graph, nprobe of cells). Raise it above the
        default, which was measured when the base was built, for queries that are less like what is stored.
        For a filter and a search of the same moment, call both inside one `catalogue.reading()`.
        """
        check_numbers(k=k, depth=depth)
        with self._lock, self._catalogue.reading():
            self.refresh()
            view = self._view
            check_queries(queries, view.dim)
            few: int | None = self._few
            if exact and view.base is not None and view.base.kind.approximate:
                few = None
            return search_view(view, queries, k, reach=view.reach(rows), few=few, depth=depth)

    def close(self) -> None:
        """Let go of the base, so that it may be removed."""
        with self._lock:
            self._opener.shutdown()
            self._opening = None
            self._view = View(None)

    @property
    def _base_file(self) -> str | None:
        return self._view.base.record.file if self._view.base is not None else None

    def _catch_up(self) -> None:
        try:
            self._view.apply(self._catalogue.vectors.changes_since(self._release, self._view.seq))
        except ChangesForgotten:  # asleep for two compactions: only the base that the catalogue names knows
            named = self._catalogue.bases.get(self._release)
            self._take_over(self._open(named) if named is not None else None)

    def _open(self, named: BaseRecord) -> MappedBase | None:
        """The base; None if it was replaced and removed since the moment that this thread reads.

        Everything is then loaded from the catalogue. That takes two compactions within one block of reading, and only
        small collections are compacted that fast.
        """
        try:
            return open_base(self._catalogue.folder, named)
        except IndexUnusable:
            if self._opener.submit(self._catalogue.bases.get, self._release).result() == named:  # as of now
                raise
            return None

    def _change_base(self, *, wait: bool) -> None:
        named = self._catalogue.bases.get(self._release)
        if named is None:
            self._take_over(None)
            return
        if self._opening is None or self._opening[0] != named:
            self._opening = (named, self._opener.submit(open_base, self._catalogue.folder, named))
            self._opening[1].add_done_callback(partial(_tell_failure, named))
        opened = self._opening[1]
        if wait or (opened.done() and opened.exception() is None):
            self._take_over(opened.result())

    def _take_over(self, base: MappedBase | None) -> None:
        view = View(base)
        view.apply(self._catalogue.vectors.changes_since(self._release, view.seq))
        self._view, self._opening = view, None


def _open_named(catalogue: Catalogue, release: str) -> MappedBase | None:
    """The base that the catalogue names; again if it was replaced, and so removed, before it was locked."""
    while (named := catalogue.bases.get(release)) is not None:
        try:
            return open_base(catalogue.folder, named)
        except IndexUnusable:
            if catalogue.bases.get(release) == named:
                raise
    return None


def _tell_failure(named: BaseRecord, opened: "Future[MappedBase]") -> None:
    if not opened.cancelled() and (error := opened.exception()) is not None:
        _log.error("the base before %s stays in use: %s", named.file, error)
