"""Compact a collection: build a new base for everything written so far, and switch to it. While it is served, too.

`python -m serving.compact --collection runs/digits/collection`

A server does this by itself when enough has changed; by hand it is for choosing the kind of index or its recall.
`--depth-only` leaves the index as it is and chooses only how deep it is searched, which takes one reading of the
vectors. `--queries` has the recall measured also on real queries, now and at every later build: an array of their
embeddings, such as a `shard-000000.npy` of `python -m serving.bulk` over pictures like those that users search with.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from core.machine.machine import usable_cores
from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.catalogue.sqlite.vectors import Vectors
from serving.collection.errors import CollectionError
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.kinds import KINDS, Plan
from serving.collection.index.faiss.trial import keep_asked
from serving.collection.index.faiss.tuning import tune

_POLITE = 10


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.compact", description="Build a collection's index anew.")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument("--release", help="digest of one release (default: every release that has vectors)")
    parser.add_argument("--kind", choices=("auto", *KINDS), default="auto", help="of index (default: by size)")
    parser.add_argument("--recall", type=float, default=Plan.recall_target, help="recall@10 to reach (%(default)s)")
    parser.add_argument("--depth-only", action="store_true", help="keep the index, choose the depth of search anew")
    parser.add_argument("--queries", type=Path, metavar="NPY", help="embeddings of real queries, to measure recall on")
    parser.add_argument("--nice", action="store_true", help="yield the cores to others")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    if given.nice:
        os.nice(_POLITE)
    faiss.omp_set_num_threads(usable_cores())
    try:
        catalogue = Catalogue(given.collection)
        plan = Plan(kind=given.kind, recall_target=given.recall)
        releases = [given.release] if given.release else [one.release for one in catalogue.stats().releases]
        queries = np.load(given.queries, allow_pickle=False) if given.queries is not None else None
        for release in releases:
            if queries is not None:
                _keep(catalogue, release, queries)
            done = tune(catalogue, release, plan) if given.depth_only else compact(catalogue, release, plan)
            _tell(catalogue, release, done=done)
    except (CollectionError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _keep(catalogue: Catalogue, release: str, queries: Vectors) -> None:
    dim = catalogue.census(release).dim
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"queries have the shape {queries.shape}; it must be (N, {dim})")
    keep_asked(catalogue.folder, release, queries)


def _tell(catalogue: Catalogue, release: str, *, done: bool) -> None:
    base = catalogue.base(release)
    if not done:
        print("another process compacts this collection just now", file=sys.stderr)
    elif base is not None:
        depth = f" at depth {base.facts['depth']}" if "depth" in base.facts else ""
        by_sort = ", ".join(f"{name} {recall:.3f}" for name, recall in base.facts.get("recall_by_sort", {}).items())
        told = f"recall@10 {base.recall:.3f}{depth}" + (f" ({by_sort})" if by_sort else "")
        print(f"{release[:16]}: {base.kind} of {base.count}, {told}, {base.facts['seconds']} s")


if __name__ == "__main__":
    sys.exit(main())
