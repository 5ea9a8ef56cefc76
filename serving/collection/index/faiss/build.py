"""Building a base from the catalogue's vectors: its kind by their number, its search depth by the recall it measures.

The base holds the vectors as of one write. They are read in parts, none of which waits for a lock. What is written
meanwhile is left out, and whoever opens the base reads it from the catalogue as changed since. For an approximate kind
some vectors are held out. They, and trial queries made of them, are searched for before they are added, and the result
is compared with exact search (`serving.collection.index.faiss.depth`).
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Census, Rows, Vectors
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.base_files import BaseFiles, VectorsWriter
from serving.collection.index.faiss.depth import RECALL_AT, Trial
from serving.collection.index.faiss.kinds import IndexKind, NativeIndex, Plan
from serving.collection.index.faiss.mapped_base import publish_base
from serving.collection.index.faiss.trial import FEWEST_HELD, MOST_OF_A_SORT, kept_asked, trial_queries
from serving.collection.index.scoring import Best

_log = logging.getLogger(__name__)
_PART_BYTES = 32 << 20
Fetch = Callable[[Rows], tuple[Rows, Vectors]]  # those of some rows that have a vector, ascending, with the vectors


@dataclass(frozen=True, eq=False)
class _Built:
    """An index in memory, the row at each position, and what was measured of it."""

    index: NativeIndex
    rows: Rows
    recall: float
    facts: dict[str, Any]


def build_base(catalogue: Catalogue, release: str, plan: Plan) -> BaseRecord:
    """Write a base with every vector of `release`; the catalogue does not name it yet. Raises `CompactionError`."""
    began = time.monotonic()
    census = catalogue.vectors.census(release)
    if not len(census.rows):
        raise CompactionError(f"the collection {catalogue.folder} has no vector of release {release[:16]} to index")
    kind = plan.choose(len(census.rows))
    record = BaseRecord(
        release=release,
        file=f"{release[:16]}-{census.seq}-{uuid.uuid4().hex[:8]}.faiss",
        sha256="",
        count=len(census.rows),
        dim=census.dim,
        seq=census.seq,
        kind=kind.name,
    )
    fetch = partial(catalogue.vectors.at, release=release, until=census.seq)
    vectors = _writer(catalogue, record) if kind.approximate else None
    try:
        if vectors is not None:
            asked = kept_asked(catalogue.folder, release, census.dim)
            built = _approximate(kind, census, fetch=fetch, plan=plan, vectors=vectors, asked=asked)
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


def _writer(catalogue: Catalogue, record: BaseRecord) -> VectorsWriter:
    try:
        return VectorsWriter(BaseFiles(catalogue.folder / record.file).vectors, record.dim)
    except OSError as error:
        raise _not_whole(catalogue, record, error) from error


def _not_whole(catalogue: Catalogue, record: BaseRecord, error: OSError) -> CompactionError:
    path = catalogue.folder / record.file
    return CompactionError(f"{path} could not be written whole: is the disk full? ({error})")


def _exact(kind: IndexKind, census: Census, *, fetch: Fetch) -> _Built:
    index = kind.empty(len(census.rows), census.dim)
    rows = _add(index, census.rows, fetch=fetch)
    return _Built(index, rows, 1.0, {})


def _approximate(
    kind: IndexKind, census: Census, *, fetch: Fetch, plan: Plan, vectors: VectorsWriter, asked: Vectors | None
) -> _Built:
    random = np.random.default_rng(plan.seed)
    chosen = random.choice(census.rows, min(plan.held_out, len(census.rows) // 10), replace=False)
    held_rows, held = fetch(chosen)
    if len(held) < FEWEST_HELD:
        raise _overtaken()
    rest = np.setdiff1d(census.rows, chosen)
    index = kind.empty(len(rest), census.dim)
    index.train(fetch(np.sort(random.choice(rest, kind.training_size(len(rest)), replace=False)))[1])
    shuffled = random.permutation(held)
    trial = Trial({"held out": shuffled[:MOST_OF_A_SORT], **trial_queries(shuffled, asked=asked, random=random)})
    rows = _add(index, rest, fetch=fetch, truth=trial.truth, vectors=vectors)
    depth = trial.choose(kind, index, rows=rows, matrix=vectors.matrix(), target=plan.recall_target)
    index.add(held)
    vectors.append(held)
    return _Built(index, np.concatenate([rows, held_rows]), depth.recall, {**depth.facts, "held_out": len(held)})


def _add(
    index: NativeIndex, rows: Rows, *, fetch: Fetch, truth: Best | None = None, vectors: VectorsWriter | None = None
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
        raise _overtaken()
    return np.concatenate(added)


def _overtaken() -> CompactionError:
    return CompactionError("nearly every vector was written anew while the base was built: build it again")
