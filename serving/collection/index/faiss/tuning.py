"""Choosing the search depth of a base anew, without building it: for another recall target, or for other queries.

The index and its vectors stay as they are. The catalogue records another depth, which every worker takes over before
its next search. Trial queries of the sort "held out" are not used here, as all vectors are in the index by now.
"""

from dataclasses import replace

import numpy as np

from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.interface import Catalogue
from serving.collection.errors import CompactionError
from serving.collection.index.faiss.base_files import BaseFiles, read_vectors
from serving.collection.index.faiss.compaction import alone
from serving.collection.index.faiss.depth import Chosen, Trial
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.faiss.mapped_base import MappedBase, open_base
from serving.collection.index.faiss.trial import FEWEST_HELD, kept_asked, trial_queries


def tune(catalogue: Catalogue, release: str, plan: Plan) -> bool:
    """Give the base the depth at which all sorts of query reach the plan's recall; False if another compacts.

    An exact base has no depth, and stays as it is. Raises `CompactionError` if there is no base, `IndexUnusable`
    if it is damaged.
    """
    with alone(catalogue.folder) as only:
        if not only:
            return False
        base = catalogue.bases.get(release)
        if base is None:
            raise CompactionError(f"{catalogue.folder} has no base of release {release[:16]}: compact it first")
        mapped = open_base(catalogue.folder, base)
        if mapped.kind.approximate:
            catalogue.bases.put(_with_depth(base, _choose(catalogue, mapped, plan)))
    return True


def _choose(catalogue: Catalogue, mapped: MappedBase, plan: Plan) -> Chosen:
    record, random = mapped.record, np.random.default_rng(plan.seed)
    drawn = random.permutation(len(mapped))[: max(FEWEST_HELD, min(plan.held_out, len(mapped) // 10))]
    asked = kept_asked(catalogue.folder, record.release, record.dim)
    trial = Trial(trial_queries(mapped.vectors(drawn), asked=asked, random=random))
    start = 0
    for part in read_vectors(BaseFiles(catalogue.folder / record.file).vectors, record.dim):
        trial.truth.offer(mapped.rows[start : start + len(part)], part)
        start += len(part)
    return mapped.choose_depth(trial, target=plan.recall_target)


def _with_depth(base: BaseRecord, chosen: Chosen) -> BaseRecord:
    return replace(base, recall=chosen.recall, facts={**base.facts, **chosen.facts})
