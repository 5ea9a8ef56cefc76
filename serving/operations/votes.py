"""The label that neighbours vote for: a second opinion beside the linear probe, which needs no training.

A neighbour's vote weighs exp(score / 0.1) (Wu et al. 2018, arXiv 1805.01978), as in `training.evaluation.evaluate`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

TEMPERATURE = 0.1


def vote(neighbours: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The winning `label`, its `share` of the votes, all `shares`, and how many `voters`; None without any."""
    weights: dict[str, float] = defaultdict(float)
    voters = [one for one in neighbours if one["label"] is not None]
    for one in voters:
        weights[one["label"]] += math.exp((one["score"] - 1) / TEMPERATURE)
    if not voters:
        return None
    total = sum(weights.values())
    shares = {label: weight / total for label, weight in sorted(weights.items(), key=lambda pair: -pair[1])}
    best = next(iter(shares))
    return {"label": best, "share": shares[best], "shares": shares, "voters": len(voters)}
