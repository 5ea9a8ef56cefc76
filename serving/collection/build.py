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
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from serving.collection.base import publish_base
from serving.collection.bases import Base
from serving.collection.catalogue import Catalogue
from serving.collection.errors import CompactionError
from serving.collection.index_kinds import Index, IndexKind, Plan
from serving.collection.scoring import Best, Fetch, Found, rank
from serving.collection.vectors import Census, Rows, Vectors

_log = logging.getLogger(__name__)
RECALL_AT = 10
_PART_BYTES = 32 << 20


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
    fetch = partial(catalogue.vectors_at, release=release, until=census.seq)
    built = (
        _approximate(kind, census, fetch=fetch, plan=plan) if kind.approximate else _exact(kind, census, fetch=fetch)
    )
    if built.recall < plan.recall_target:
        _log.warning("%s of %d vectors reaches recall %.3f, not %s", kind.name, len(built.rows), built.recall, plan)
    record = Base(
        release=release,
        file=f"{release[:16]}-{census.seq}-{uuid.uuid4().hex[:8]}.faiss",
        sha256="",
        count=len(built.rows),
        dim=census.dim,
        seq=census.seq,
        kind=kind.name,
        recall=built.recall,
        facts={**built.facts, "seconds": round(time.monotonic() - began, 3)},
    )
    return publish_base(catalogue.folder, record, index=built.index, rows=built.rows)


def candidates_for(k: int) -> int:
    """How many an approximate search looks up exactly to return the `k` best."""
    return 2 * k + 10


def _exact(kind: IndexKind, census: Census, *, fetch: Fetch) -> _Built:
    index = kind.empty(len(census.rows), census.dim)
    rows = _add(index, census.rows, fetch=fetch)
    return _Built(index, rows, 1.0, {})


def _approximate(kind: IndexKind, census: Census, *, fetch: Fetch, plan: Plan) -> _Built:
    random = np.random.default_rng(plan.seed)
    chosen = random.choice(census.rows, min(plan.held_out, len(census.rows) // 10), replace=False)
    held_rows, held = fetch(chosen)
    rest = np.setdiff1d(census.rows, chosen)
    index = kind.empty(len(rest), census.dim)
    index.train(fetch(random.choice(rest, kind.training_size(len(rest)), replace=False))[1])
    truth = Best(held, RECALL_AT)
    rows = _add(index, rest, fetch=fetch, truth=truth)
    recalls = _measure(kind, index, _HeldOut(held, rows, truth.found(), fetch), target=plan.recall_target)
    index.add(held)
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
    """Queries that are not in the index, the rows that are, and the exact answers."""

    queries: Vectors
    rows: Rows
    truth: Found
    fetch: Fetch


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
    _, positions = kind.search(index, held.queries, count=count, depth=depth, selector=None)
    best = Best(held.queries, RECALL_AT)
    candidates = [held.rows[found[found >= 0]] for found in positions]
    rank(best, candidates, held.fetch)
    worst = held.truth.scores[:, -1]
    filled = sum(int((scores >= least).sum()) for scores, least in zip(best.scores(), worst, strict=True))
    return filled / held.truth.scores.size


def _add(index: Index, rows: Rows, *, fetch: Fetch, truth: Best | None = None) -> Rows:
    """Add the vectors of `rows` in parts, also to the exact search; returns the rows that still had theirs."""
    size = max(256, _PART_BYTES // (4 * index.d))
    added = []
    for start in range(0, len(rows), size):
        found, vectors = fetch(rows[start : start + size])
        index.add(vectors)
        if truth is not None:
            truth.offer(found, vectors)
        added.append(found)
    if index.ntotal < min(len(rows), RECALL_AT):
        raise CompactionError("nearly every vector was written anew while the base was built: build it again")
    return np.concatenate(added)
