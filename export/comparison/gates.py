"""The gates of promotion: each holds a value against a bound, and says in a sentence why it passed or did not.

Every comparison is written so that NaN never passes. The bounds come from `export.comparison.thresholds`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.comparison.bootstrap import Difference, paired_difference
from export.comparison.speed import Pace
from export.comparison.thresholds import Thresholds
from export.formats.parity import EXACT
from training.evaluation.cautions import margin


@dataclass(frozen=True)
class Gate:
    """One gate. `champion` is None if the champion has no such value or plays no part."""

    name: str
    value: float
    champion: float | None
    bound: float
    passed: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        """As the manifest records it."""
        return asdict(self)


def failures(gates: Sequence[Gate]) -> list[str]:
    """The gates that did not pass, as sentences."""
    return [f"{gate.name}: {gate.why}" for gate in gates if not gate.passed]


def not_worse(
    name: str, challenger: NDArray[np.generic], champion: NDArray[np.generic], thresholds: Thresholds
) -> tuple[Gate, Difference]:
    """Two scores per image, (N,) each: not worse beyond chance, nor by more points than may be lost."""
    found = paired_difference(challenger, champion, confidence=thresholds.confidence, resamples=thresholds.resamples)
    allowed = thresholds.points_lost(len(champion))
    interval = f"{100 * found.mean:+.1f} points on {len(champion)} images, 95% interval {_points(found)}"
    if not found.high >= 0:
        passed, why = False, f"worse than the champion beyond chance: {interval}"
    elif not -100 * found.mean <= allowed:
        passed, why = False, f"worse than the champion by more than {allowed:.1f} points: {interval}"
    else:
        passed, why = True, f"not worse than the champion: {interval}"
    of_champion = float(champion.astype(np.float64).mean())
    value = float(challenger.astype(np.float64).mean())
    return Gate(name, value, of_champion, of_champion - allowed / 100, passed, why), found


def not_collapsed(signals: Mapping[str, float], count: int, thresholds: Thresholds) -> list[Gate]:
    """The embeddings of `count` images differ from one another, and use enough dimensions."""
    rankme = min(thresholds.rankme_least, count / 4)  # it can't be above the number of images
    return [
        _at_least("spread", signals["spread"], None, thresholds.spread_least, "0 is one embedding for all images"),
        _at_least("rankme", signals["rankme"], None, rankme, "the number of dimensions in use"),
    ]


def dimensions_kept(challenger: float, champion: float, thresholds: Thresholds) -> Gate:
    """RankMe is not far below the champion's."""
    least = thresholds.rankme_share_least * champion
    share = f"{challenger / champion:.0%} of the champion's dimensions" if champion else "the champion has none"
    return _at_least("rankme_of_champion", challenger, champion, least, share)


def above_chance(right: NDArray[np.bool_], most_frequent: float) -> Gate:
    """The probe beats naming the most frequent label every time."""
    why = "the share of the most frequent label, which needs no encoder"
    value = float(right.mean())
    return Gate(
        "probe_above_chance",
        value,
        None,
        most_frequent,
        value > most_frequent,
        _beside(value, "above", most_frequent, why),
    )


def not_below_random(accuracy: float, random: float, count: int) -> Gate:
    """The probe is not worse than a random encoder's, by more than `count` images can tell."""
    bound = random - margin(random, count)
    why = f"a random encoder's {random:.1%} less what {count} images can't tell"
    return Gate("probe_of_random", accuracy, None, bound, accuracy >= bound, _beside(accuracy, "at least", bound, why))


def quick(name: str, pace: Pace, thresholds: Thresholds) -> Gate:
    """A time in milliseconds is not much longer than the champion's."""
    new, old, bound = pace.challenger, pace.champion, pace.allowed(thresholds)
    why = (
        f"{new / old:.2f} times the champion's, fastest of {len(pace.times)} rounds in turn; "
        f"at most {thresholds.time_ratio_most} times, or {thresholds.milliseconds_more:g} ms more"
    )
    if not new <= bound and pace.work is not None:
        why += f"; {pace.work_ratio:.2f} times its processor time, with the same bound"
    return Gate(name, new, old, bound, not pace.slow(thresholds), why)


def small(challenger: int, champion: int, thresholds: Thresholds) -> Gate:
    """The file that runs here is not much larger than the champion's, in bytes."""
    most = thresholds.bytes_ratio_most
    why = f"{challenger / champion:.2f} times the champion's file; at most {most} times"
    return Gate("file_bytes", challenger, champion, most * champion, challenger <= most * champion, why)


def parity(figures: Mapping[str, Mapping[str, Any]]) -> Gate:
    """The largest difference of an exact format from the eager graph, as it was published, is within its bound."""
    value = max((float(one["embedding_difference"]) for one in figures.values()), default=np.nan)
    bound = EXACT.largest_difference
    why = f"{' and '.join(figures) or 'nothing'} against the reference, on real images"
    return Gate("export_parity", value, None, bound, value <= bound, why)


def _at_least(name: str, value: float, champion: float | None, bound: float, why: str) -> Gate:
    return Gate(name, value, champion, bound, value >= bound, f"{value:.3g}, at least {bound:.3g} is needed ({why})")


def _beside(value: float, relation: str, bound: float, why: str) -> str:
    return f"{value:.1%}, {relation} {bound:.1%} is needed ({why})"


def _points(found: Difference) -> str:
    return f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
