"""Build a base from the catalogue's vectors: the kind by size, the search depth by the recall that it measures.

The base holds the vectors as of one write. They are read in parts, none of which waits for a lock: what is written
meanwhile is left out, and whoever opens the base reads it from the catalogue as changed since.
For an approximate kind some vectors are held out, searched for before they are added, and compared with exact search;
the depth is raised until the target is met, or there is nothing deeper: then what was reached is on record.
Left out: when to build, and clearing away (`serving.collection.compaction`).
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from serving.collection.base import publish_base
from serving.collection.base_files import BaseFiles, VectorsWriter
from serving.collection.bases import Base
from serving.collection.catalogue import Catalogue
from serving.collection.errors import CompactionError
from serving.collection.index_kinds import Index, IndexKind, Plan
from serving.collection.scoring import Best, Found
from serving.collection.vectors import Census, Rows, Vectors

_log = logging.getLogger(__name__)
RECALL_AT = 10
_PART_BYTES = 32 << 20
Fetch = Callable[[Rows], tuple[Rows, Vectors]]  # those of some rows that have a vector, ascending, with the vectors


@dataclass(frozen=True, eq=False)
class _Built:
    """An index in memory, the row at each position, and what was measured of it."""

    index: Index
    rows: Rows
    recall: float
    facts: dict[str, Any]


def build_base(catalogue: Catalogue, release: str, plan: Plan) -> Base:
    """Write a base with every vector of `release`; the catalogue does not name it yet. Raises `CompactionError`."""
    began = time.monotonic()
    census = catalogue.census(release)
    if not len(census.rows):
        raise CompactionError(f"the collection {catalogue.folder} has no vector of release {release[:16]} to index")
    kind = plan.choose(len(census.rows))
    record = Base(
        release=release,
        file=f"{release[:16]}-{census.seq}-{uuid.uuid4().hex[:8]}.faiss",
        sha256="",
        count=len(census.rows),
        dim=census.dim,
        seq=census.seq,
        kind=kind.name,
    )
    fetch = partial(catalogue.vectors_at, release=release, until=census.seq)
    vectors = _writer(catalogue, record) if kind.approximate else None
    try:
        if vectors is not None:
            built = _approximate(kind, census, fetch=fetch, plan=plan, vectors=vectors)
        else:
            built = _exact(kind, census, fetch=fetch)
        if built.recall < plan.recall_target:
            _log.warning("%s of %d vectors reaches recall %.3f, not %s", kind.name, len(built.rows), built.recall, plan)
        facts = {**built.facts, "seconds": round(time.monotonic() - began, 3)}
        record = replace(record, count=len(built.rows), recall=built.recall, facts=facts)
        return publish_base(catalogue.folder, record, index=built.index, rows=built.rows, vectors=vectors)
    except OSError as error:
        BaseFiles(catalogue.folder / record.file).remove()
        raise _not_whole(catalogue, record, error) from error
    finally:
        if vectors is not None:
            vectors.close()


def candidates_for(k: int) -> int:
    """How many an approximate search scores exactly to return the `k` best: 8-bit codes put few of them any lower."""
    return k + max(5, k // 2)


def _writer(catalogue: Catalogue, record: Base) -> VectorsWriter:
    try:
        return VectorsWriter(BaseFiles(catalogue.folder / record.file).vectors, record.dim)
    except OSError as error:
        raise _not_whole(catalogue, record, error) from error


def _not_whole(catalogue: Catalogue, record: Base, error: OSError) -> CompactionError:
    path = catalogue.folder / record.file
    return CompactionError(f"{path} could not be written whole: is the disk full? ({error})")


def _exact(kind: IndexKind, census: Census, *, fetch: Fetch) -> _Built:
    index = kind.empty(len(census.rows), census.dim)
    rows = _add(index, census.rows, fetch=fetch)
    return _Built(index, rows, 1.0, {})


def _approximate(kind: IndexKind, census: Census, *, fetch: Fetch, plan: Plan, vectors: VectorsWriter) -> _Built:
    random = np.random.default_rng(plan.seed)
    chosen = random.choice(census.rows, min(plan.held_out, len(census.rows) // 10), replace=False)
    held_rows, held = fetch(chosen)
    rest = np.setdiff1d(census.rows, chosen)
    index = kind.empty(len(rest), census.dim)
    index.train(fetch(np.sort(random.choice(rest, kind.training_size(len(rest)), replace=False)))[1])
    truth = Best(held, RECALL_AT)
    rows = _add(index, rest, fetch=fetch, truth=truth, vectors=vectors)
    recalls = _measure(kind, index, _HeldOut(held, rows, truth.found(), vectors.matrix()), target=plan.recall_target)
    index.add(held)
    vectors.append(held)
    depth = max(recalls)
    facts = {
        "depth": depth,
        "recall_by_depth": {str(tried): round(recall, 4) for tried, recall in recalls.items()},
        "recall_target": plan.recall_target,
        "held_out": len(held),
    }
    return _Built(index, np.concatenate([rows, held_rows]), recalls[depth], facts)


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """Queries that are not in the index, the rows and vectors that are, and the exact answers."""

    queries: Vectors
    rows: Rows
    truth: Found
    matrix: Vectors


def _measure(kind: IndexKind, index: Index, held: _HeldOut, *, target: float) -> dict[int, float]:
    """Recall by depth, depth after depth until the target is met or there is nothing deeper."""
    recalls: dict[int, float] = {}
    for depth in kind.depths(index):
        recalls[depth] = _recall(kind, index, held, depth=depth)
        if recalls[depth] >= target:
            break
    return recalls


def _recall(kind: IndexKind, index: Index, held: _HeldOut, *, depth: int) -> float:
    """The share of the exact answers' places that were filled as well; a tie is as good as the original."""
    count = min(candidates_for(RECALL_AT), index.ntotal)
    depth = max(depth, kind.depth_for(count))
    _, positions = kind.search(index, held.queries, count=count, depth=depth, selector=None)
    best = Best(held.queries, RECALL_AT)
    best.offer_at(positions, held.rows, held.matrix)
    return float((best.scores() >= held.truth.scores[:, -1:]).mean())


def _add(
    index: Index, rows: Rows, *, fetch: Fetch, truth: Best | None = None, vectors: VectorsWriter | None = None
) -> Rows:
    """Add the vectors of `rows` in parts, also to the exact search and to the file; returns the rows that had one.

    Nothing but the index itself stays in memory.
    """
    size = max(256, _PART_BYTES // (4 * index.d))
    added = []
    for start in range(0, len(rows), size):
        found, part = fetch(rows[start : start + size])
        index.add(part)
        if truth is not None:
            truth.offer(found, part)
        if vectors is not None:
            vectors.append(part)
        added.append(found)
    if index.ntotal < min(len(rows), RECALL_AT):
        raise CompactionError("nearly every vector was written anew while the base was built: build it again")
    return np.concatenate(added)
