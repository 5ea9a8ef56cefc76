"""Whether a retraining is needed: what `simclr drift` says, whose rule docs/retraining.md states."""

import json
import subprocess
import sys
from typing import Any

from retraining.errors import PlanError
from retraining.plan import Plan

NOT_NEEDED, NEEDED = 0, 10  # exit codes of serving.collection.drift.command


def needed(plan: Plan) -> dict[str, Any]:
    """ "needed", "reasons" and what was measured ("drift"); without a champion it always is. Raises `PlanError`."""
    if not plan.champion:
        return {"needed": True, "reasons": ["there is no champion yet"], "drift": None}
    if not plan.collection:
        raise PlanError("--if-needed looks at a collection, and there is none: give --collection")
    command = [sys.executable, "-m", "serving.collection.drift.command", "--release", str(plan.champion_folder)]
    done = subprocess.run(
        [*command, "--collection", plan.collection, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode not in (NOT_NEEDED, NEEDED):
        raise PlanError(f"drift could not be measured: {done.stderr.strip()[-500:]}")
    measured = json.loads(done.stdout)
    return {"needed": done.returncode == NEEDED, "reasons": measured["reasons"], "drift": measured}
