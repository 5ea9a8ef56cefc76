"""The estimate of a retraining, made in a process of its own.

It needs torch and takes steps with it. Made here, what that has in memory would count as the stages' memory.
"""

import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from retraining.child import end_with, make_way
from retraining.costs import Cost
from retraining.plan import Plan

logger = logging.getLogger(__name__)


def estimate_apart(plan: Plan, folder: Path, past: Sequence[dict[str, Any]], *, polite: bool) -> list[Cost]:
    """`retraining.estimate.estimate` in another process; an empty list if that dies."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, _prepare, (os.getpid(), polite)) as apart:
            return apart.submit(_estimate, plan, folder, past).result()
    except BrokenProcessPool:
        logger.warning("time and disk can't be estimated: the process that tries some steps died (out of memory?)")
        return []


def _prepare(parent: int, polite: bool) -> None:
    end_with(parent)
    if polite:
        make_way()


def _estimate(plan: Plan, folder: Path, past: Sequence[dict[str, Any]]) -> list[Cost]:
    from retraining.estimate import estimate

    return estimate(plan, folder, past)
