"""The index in Milvus: a cluster, a standalone server, or milvus-lite; the calls are the same.

Before a search, whatever the catalogue has and Milvus lacks is sent to it, so a search sees every write acknowledged
before it, whichever worker took it. Milvus only proposes rows. Which of them are live, and what they score, is read
from the catalogue, as of the moment of the search; if Milvus proposes too few, the catalogue's vectors are compared in
full. So are the rows of a selective filter, and for `exact` all of them, which takes longer the more there are.
"""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.errors import IndexUnusable
from serving.collection.index.choice import IndexChoice
from serving.collection.index.faiss.kinds import GRAPH
from serving.collection.index.interface import Capabilities, Sizes, check_numbers, check_queries
from serving.collection.index.milvus.entities import MOST_FOUND, Entities
from serving.collection.index.milvus.tail import Pushed, Tail, name_in_milvus
from serving.collection.index.scoring import Best, Found

FEW_ROWS = 1_000  # reading this many from SQLite costs no more than asking Milvus
DEPTH = 64
# A filter of up to this many rows is sent as a list; for a longer one more is asked for, and picked from.
_LISTED = 10_000
_COMPARED_AT_ONCE = 1_024
_WIDER = 4
_log = logging.getLogger(__name__)


class MilvusIndex:
    """The vectors of one release in Milvus. Threads may share it; they take turns."""

    def __init__(self, catalogue: Catalogue, release: str, choice: IndexChoice, *, few_rows: int = FEW_ROWS) -> None:
        """Connect, and send what Milvus lacks: everything, if it has nothing or too little. Raises `IndexUnusable`."""
        self._catalogue = catalogue
        self._release = release
        self._choice = choice
        self._few_rows = few_rows
        self._lock = threading.RLock()
        self._entities = Entities(choice, name_in_milvus(catalogue.folder, release))
        self._tail = Tail(catalogue, release, self._entities)
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="push-to-milvus")
        self._pushed = Pushed(0, 0)
        self._counted = (-1, 0)
        self._push(verify=True)

    def __len__(self) -> int:
        return self.sizes.live

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return Capabilities(
            approximate=True,
            depth=True,
            few_rows=self._few_rows,
            several_processes=not self._choice.local,
            elsewhere=not self._choice.local,
            shared_memory=not self._choice.local,
            of_one_moment=False,
            compacts_here=False,
        )

    @property
    def sizes(self) -> Sizes:
        """How many vectors the catalogue has now; Milvus has them all when a search needs them."""
        with self._catalogue.reading():
            seq = self._catalogue.vectors.sequence(self._release)
            if seq != self._counted[0]:
                self._counted = (seq, len(self._catalogue.vectors.census(self._release).rows))
        return Sizes(self._counted[1], 0, 0)

    @property
    def base(self) -> BaseRecord | None:
        """There is none."""
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """Where the vectors are kept."""
        return {"kind": "milvus", "server": self._choice.shown, "collection": self._entities.name, "depth": DEPTH}

    def refresh(self, *, wait: bool = False) -> None:
        """Send everything committed by now. Raises `IndexUnusable` if Milvus refuses it."""
        with self._lock, self._catalogue.reading():
            if self._catalogue.vectors.sequence(self._release) > self._pushed.seq:
                self._push()

    def search(
        self, queries: Vectors, k: int, *, rows: Rows | None = None, exact: bool = False, depth: int | None = None
    ) -> Found:
        """The `k` rows of highest cosine similarity to each query (Q, D), unit norm; fewer where there are fewer.

        `rows` are the only ones allowed, in any order; `exact` compares every vector of the catalogue. `depth` is
        Milvus's ef. For a filter and a search of the same moment, call both inside one `catalogue.reading()`.
        """
        check_numbers(k=k, depth=depth)
        with self._lock, self._catalogue.reading():
            self.refresh()
            check_queries(queries, self._pushed.dim or None)
            allowed = np.unique(rows) if rows is not None else None
            if not len(queries) or not self._pushed.dim:
                return _nothing(queries)
            few = allowed is not None and len(allowed) <= self._few_rows
            if exact or few or k > MOST_FOUND:
                return self._compare(queries, k, self._allowed_rows(allowed, few=few))
            try:
                return self._look(queries, k, allowed, depth or DEPTH)
            except IndexUnusable as error:
                _log.warning("%s; its state is looked at, and then it is asked again", error)
            self._push(verify=True)
            return self._look(queries, k, allowed, depth or DEPTH)

    def close(self) -> None:
        """Close the connection. milvus-lite keeps its folder open until the process ends."""
        with self._lock:
            self._sender.submit(self._catalogue.close).result()
            self._sender.shutdown()
            self._entities.close()

    def _push(self, *, verify: bool = False) -> None:
        self._pushed = self._sender.submit(self._tail.push, verify=verify).result()

    def _look(self, queries: Vectors, k: int, allowed: Rows | None, depth: int) -> Found:
        """What Milvus proposes, scored exactly; queries for which it proposes too few are compared with all rows."""
        best = Best(queries, k)
        pending = np.arange(len(queries))
        listed = allowed if allowed is not None and len(allowed) <= _LISTED else None
        count = min(self._first_count(k, allowed if listed is None else None), MOST_FOUND)
        while pending.size:
            proposed = self._entities.search(queries[pending], count, depth=depth, rows=listed)
            positions, rows, vectors = self._live(proposed, allowed)
            done = (positions >= 0).sum(axis=1) >= k
            best.offer_at(positions[done], rows, vectors, only=pending[done])
            pending = pending[~done]
            if count == MOST_FOUND or max(map(len, proposed)) < count:
                break
            count, depth = min(_WIDER * count, MOST_FOUND), _WIDER * depth
        if pending.size:
            rows = self._allowed_rows(allowed)
            if len(rows) < k:  # so there are not k for any query
                return self._compare(queries, k, rows)
            self._offer(best, rows, pending)
        return best.found()

    def _first_count(self, k: int, picked_from: Rows | None) -> int:
        """How many to ask Milvus for, so that enough of them are likely to be allowed."""
        count = GRAPH.candidates(k)
        if picked_from is None:
            return count
        return int(count * max(1.0, 1.5 * self._entities.count() / len(picked_from)))

    def _live(self, proposed: list[list[int]], allowed: Rows | None) -> tuple[Rows, Rows, Vectors]:
        """For each query its candidates as positions (Q, C), -1 for none, in live rows (N,) with vectors (N, D)."""
        wanted = np.unique(np.array([row for line in proposed for row in line], np.int64))
        if allowed is not None:
            wanted = np.intersect1d(wanted, allowed, assume_unique=True)
        rows, vectors = self._catalogue.vectors.at(wanted, self._release)
        place = {row: at for at, row in enumerate(rows.tolist())}
        lines = [[place[row] for row in dict.fromkeys(line) if row in place] for line in proposed]
        positions = np.full((len(lines), max(map(len, lines))), -1, np.int64)
        for at, line in enumerate(lines):
            positions[at, : len(line)] = line
        return positions, rows, vectors

    def _allowed_rows(self, allowed: Rows | None, *, few: bool = False) -> Rows:
        """The rows that have a vector and are allowed."""
        if allowed is not None and few:
            return self._catalogue.vectors.at(allowed, self._release)[0]
        rows = self._catalogue.vectors.census(self._release).rows
        return rows if allowed is None else np.intersect1d(rows, allowed, assume_unique=True)

    def _compare(self, queries: Vectors, k: int, rows: Rows) -> Found:
        """The k best of these rows, all of which have a vector in the catalogue."""
        best = Best(queries, min(k, len(rows)))
        if not best.k:
            return _nothing(queries)
        self._offer(best, rows, np.arange(len(queries)))
        return best.found()

    def _offer(self, best: Best, rows: Rows, queries: Rows) -> None:
        for start in range(0, len(rows), _COMPARED_AT_ONCE):
            part = rows[start : start + _COMPARED_AT_ONCE]
            best.offer(*self._catalogue.vectors.at(part, self._release), only=queries.tolist())


def _nothing(queries: Vectors) -> Found:
    return Found(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
