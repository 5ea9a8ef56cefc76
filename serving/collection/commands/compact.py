"""`simclr compact`: build a new base of everything written so far, and switch to it, while the collection is served.

Workers start it as `python -m serving.collection.commands.compact`.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.command_line.command import Command, main
from core.command_line.endings import conclude

if TYPE_CHECKING:
    from serving.collection.catalogue.interface import Catalogue

_POLITE = 10
INDEX_KINDS = ("auto", "exact", "hnsw", "ivf", "ivf_rabitq")  # here, as faiss takes long to import
_DETAILS = """\
A server compacts by itself when enough has changed; do it by hand to choose the kind of index or its recall.

  simclr compact --collection runs/digits/collection
  simclr compact --collection runs/digits/collection --kind hnsw --recall 0.99

--depth-only keeps the index and chooses only how deep it is searched, which takes one pass over the vectors.
--queries measures recall on real queries as well, now and at every later build. It takes an array of their embeddings,
such as a shard-000000.npy that `simclr bulk` made of pictures like those that users search with.
"""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--collection", type=Path, required=True, help="folder of the collection")
    add("--release", help="digest of one release (default: every release that has vectors)")
    add("--kind", choices=INDEX_KINDS, default="auto", help="kind of index (default: by the number of vectors)")
    add("--recall", type=float, help="recall@10 to reach (default: as a server does)")
    add("--depth-only", action="store_true", help="keep the index and choose only the search depth anew")
    add("--queries", type=Path, metavar="NPY", help="embeddings of real queries, to measure recall on")
    add("--nice", action="store_true", help="let other processes have the cores first")
    add("--json", action="store_true", help="print the result as one line of JSON")


def _run(given: argparse.Namespace) -> int:
    import faiss
    import numpy as np

    from core.machine.machine import usable_cores
    from serving.collection.catalogue.opening import open_catalogue
    from serving.collection.index.faiss.compaction import compact
    from serving.collection.index.faiss.kinds import Plan
    from serving.collection.index.faiss.tuning import tune

    if given.nice:
        os.nice(_POLITE)
    faiss.omp_set_num_threads(usable_cores())
    catalogue = open_catalogue(given.collection)
    plan = Plan(kind=given.kind, recall_target=Plan.recall_target if given.recall is None else given.recall)
    releases = [given.release] if given.release else [one.release for one in catalogue.stats().releases]
    queries = np.load(given.queries, allow_pickle=False) if given.queries is not None else None
    done = []
    for release in releases:
        if queries is not None:
            _keep(catalogue, release, queries)
        built = tune(catalogue, release, plan) if given.depth_only else compact(catalogue, release, plan)
        done.append(_outcome(catalogue, release, built=built))
    sentence = "\n".join(map(_sentence, done)) or f"{given.collection} has no vectors to compact"
    conclude(sentence, as_json=given.json, collection=given.collection, releases=done)
    return 0


def _keep(catalogue: "Catalogue", release: str, queries: Any) -> None:
    from serving.collection.index.faiss.trial import keep_asked

    dim = catalogue.vectors.census(release).dim
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries have the shape {queries.shape}; it must be (N, {dim})")
    keep_asked(catalogue.folder, release, queries)


def _outcome(catalogue: "Catalogue", release: str, *, built: bool) -> dict[str, Any]:
    base = catalogue.bases.get(release) if built else None
    found: dict[str, Any] = {"release": release, "built": built}
    if base is not None:
        found |= {"kind": base.kind, "count": base.count, "recall_at_10": base.recall, **base.facts}
    return found


def _sentence(done: dict[str, Any]) -> str:
    release = done["release"][:16]
    if not done["built"]:
        return f"{release}: left as it is, as another process is compacting this collection"
    if "kind" not in done:
        return f"{release}: has no vectors, and now no base either"
    depth = f" at depth {done['depth']}" if "depth" in done else ""
    by_sort = ", ".join(f"{name} {recall:.3f}" for name, recall in done.get("recall_by_sort", {}).items())
    recall = f"recall@10 {done['recall_at_10']:.3f}{depth}" + (f" ({by_sort})" if by_sort else "")
    return f"{release}: {done['kind']} of {done['count']}, {recall}, {done['seconds']} s"


COMMAND = Command(
    "compact",
    "Build a collection's index anew, while it is served.",
    _add_arguments,
    _run,
    details=_DETAILS,
    resume="the collection keeps the index that it had; run the command again",
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
