"""One attempt at a retraining: begin it, or go on with the one that was begun and has not ended."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.releases.model_store import CHAMPION
from retraining.apart import estimate_apart
from retraining.commands import RELEASE
from retraining.conduct import Retraining, Wishes
from retraining.costs import lacking_room, table
from retraining.errors import PlanError
from retraining.journal import abandon, begin, last_summaries, sweep, unfinished
from retraining.need import needed
from retraining.plan import Plan, check_champion, differences, settle

logger = logging.getLogger(__name__)


def retrain(asked: Plan, work: Path, wishes: Wishes, *, locks: Sequence[int]) -> dict[str, Any]:
    """Begin a retraining below `work`, or go on with the one that was begun there; returns its summary.

    `locks` are file descriptors that the stages inherit. Raises `PlanError` for what makes no sense, `StageFailed`,
    `NotPromoted` with its summary, and `Interrupted`.
    """
    sweep(work)
    past = last_summaries(work)
    found = unfinished(work)
    begun = None if wishes.fresh else found
    plan = _begun(begun, asked) if begun is not None else settle(asked, asked.releases.alias(CHAMPION))
    if begun is None and wishes.if_needed:
        verdict = needed(plan)
        if not verdict["needed"]:
            return {"outcome": "not needed", **verdict}
        logger.info("needed: %s", "; ".join(verdict["reasons"]))
    if wishes.fresh and found is not None:  # only now that what is asked for instead will be done
        abandon(found)
    folder = begun or begin(work)
    if begun is not None:
        logger.info("going on with %s", begun)
    costs = estimate_apart(plan, folder, past, polite=wishes.polite)
    logger.info(table(costs))
    if begun is None:
        if problem := lacking_room(costs, folder):
            raise PlanError(problem)
        plan.write(folder)
    return Retraining(plan, folder, locks=locks, wishes=wishes, costs=costs).run()


def dry_run(asked: Plan, work: Path, *, polite: bool) -> dict[str, Any]:
    """What it would cost, stage by stage. Raises `PlanError` for what makes no sense."""
    plan = settle(asked, asked.releases.alias(CHAMPION))
    folder = unfinished(work) or work / "new"
    costs = estimate_apart(plan, folder, last_summaries(work), polite=polite)
    logger.info(table(costs))
    if problem := lacking_room(costs, work):
        logger.warning(problem)
    return {"outcome": "dry run", "stages": [vars(cost) for cost in costs]}


def _begun(folder: Path, asked: Plan) -> Plan:
    """The plan that was begun, if it is what is asked for now."""
    begun = Plan.read(folder)
    made = json.loads((folder / RELEASE).read_text())["release"] if (folder / RELEASE).is_file() else None
    check_champion(begun, int(Path(made).name) if made else None)
    if changed := differences(begun, settle(asked, begun.champion)):
        raise PlanError(
            f"{folder} was begun with other settings: {'; '.join(changed)}. Ask for the same, or give it up by --fresh"
        )
    return begun
