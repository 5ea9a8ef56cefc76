"""The estimate of a retraining, made in a process of its own.

It needs torch and takes steps with it. Made here, what that has in memory would count as the stages' memory. Like a
stage it has a session of its own, whose priority it may lower.
"""

import logging
import multiprocessing
import os
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from retraining.child import end_with, make_way
from retraining.costs import Cost
from retraining.plan import Plan

logger = logging.getLogger(__name__)


def estimate_apart(plan: Plan, folder: Path, past: Sequence[dict[str, Any]], *, polite: bool) -> list[Cost]:
    """`retraining.estimate.estimate` in another process, which ends with us; an empty list if that dies."""
    logger.info("estimating time and disk")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, os.getpid(), polite, (plan, folder, past)))
    process.start()
    theirs.close()
    try:
        found: list[Cost] | Exception = ours.recv()
    except EOFError:
        logger.warning("time and disk can't be estimated: the process that tries some steps died (out of memory?)")
        return []
    finally:
        process.terminate()
        process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _answer(post: Connection, parent: int, polite: bool, asked: tuple[Plan, Path, Sequence[dict[str, Any]]]) -> None:
    os.setsid()
    end_with(parent)
    if polite:
        make_way()
    try:
        from retraining.estimate import estimate

        post.send(estimate(*asked))
    except Exception as error:
        error.add_note(traceback.format_exc())
        post.send(error)
