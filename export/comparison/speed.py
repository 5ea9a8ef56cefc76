"""Time of one image and of a batch, of two releases in turn in the same process.

On a machine that does other things besides, two measurements a minute apart differ more than two releases. So each
round times both, one right after the other, and what is judged is the fastest round of each: other work can only add
to a time. More rounds are run before a challenger is called slow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from export.comparison.embedded import Contender
from export.comparison.thresholds import Thresholds
from serving.runtime import Runtime

ROUNDS, ROUNDS_MOST, SINGLES, BATCH = 7, 40, 8, 16
_SECONDS_MOST = 30.0

_Lane = tuple[Runtime, NDArray[np.uint8]]
_Timer = Callable[[Runtime, NDArray[np.uint8]], float]


@dataclass(frozen=True)
class Pace:
    """Milliseconds a round, (rounds, 2), of challenger and champion."""

    times: NDArray[np.float64]

    @property
    def challenger(self) -> float:
        """The challenger's fastest round."""
        return float(self.times[:, 0].min())

    @property
    def champion(self) -> float:
        """The champion's fastest round."""
        return float(self.times[:, 1].min())

    def allowed(self, thresholds: Thresholds) -> float:
        """The most milliseconds that the challenger may take."""
        return max(thresholds.time_ratio_most * self.champion, self.champion + thresholds.milliseconds_more)

    def to_json(self) -> dict[str, float]:
        """Medians and fastest rounds, as the manifest records them."""
        challenger, champion = np.median(self.times, axis=0).tolist()
        medians = {"challenger_p50": challenger, "champion_p50": champion}
        return medians | {"challenger": self.challenger, "champion": self.champion, "rounds": float(len(self.times))}


def race(challenger: Contender, champion: Contender, thresholds: Thresholds) -> dict[str, Pace]:
    """The pace of one image (the median of eight a round) and of a batch of 16, by name."""
    lanes = tuple((one.runtime, one.read(np.resize(one.data.rows("test"), BATCH))) for one in (challenger, champion))
    return {
        "one_image_ms": _pace(lanes, _one_image, thresholds),
        f"batch_of_{BATCH}_ms": _pace(lanes, _timed, thresholds),
    }


def _pace(lanes: tuple[_Lane, ...], measure: _Timer, thresholds: Thresholds) -> Pace:
    for lane in lanes:
        measure(*lane)  # the first passes make plans and touch memory
    times: list[list[float]] = []
    start = perf_counter()
    while True:
        order = (0, 1) if len(times) % 2 else (1, 0)
        found = {place: measure(*lanes[place]) for place in order}
        times.append([found[0], found[1]])
        pace = Pace(np.array(times))
        settled = len(times) >= ROUNDS and pace.challenger <= pace.allowed(thresholds)
        if settled or len(times) >= ROUNDS_MOST or (len(times) >= ROUNDS and perf_counter() - start > _SECONDS_MOST):
            return pace


def _one_image(runtime: Runtime, images: NDArray[np.uint8]) -> float:
    return float(np.median([_timed(runtime, images[:1]) for _ in range(SINGLES)]))


def _timed(runtime: Runtime, images: NDArray[np.uint8]) -> float:
    start = perf_counter()
    runtime(images)
    return 1000 * (perf_counter() - start)
