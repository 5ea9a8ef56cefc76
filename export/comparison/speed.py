"""The time of one image and of a batch, of two releases in turn in the same process.

On a machine that has other work, two measurements a minute apart differ more than two releases do. So each round times
both, one right after the other, and the fastest round of each counts: other work can only add to a time. An opened
file keeps its threads on the cores where they were put, whatever else runs there (measured: the same file opened twice,
1.7 times apart in 40 rounds), so both are opened again before a challenger is called slow. Processor time is taken as
well, which other work hardly changes: a slow challenger takes more of both.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

from export.comparison.contender import Contender
from export.comparison.thresholds import Thresholds
from serving.inference.runtime import Runtime

ROUNDS, ROUNDS_MOST, SINGLES, BATCH = 7, 42, 8, 16
_SECONDS_MOST = 30.0

_Lane = tuple[Runtime, NDArray[np.uint8]]
_Timer = Callable[[Runtime, NDArray[np.uint8]], tuple[float, float]]


@dataclass(frozen=True)
class Pace:
    """Milliseconds per round, (rounds, 2), of challenger and champion: `times` on the clock, `work` of all threads.

    `work` is None if a GPU does it.
    """

    times: NDArray[np.float64]
    work: NDArray[np.float64] | None = None

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

    def slow(self, thresholds: Thresholds) -> bool:
        """Whether the challenger takes too long, and the machine is not to blame."""
        if self.challenger <= self.allowed(thresholds):
            return False
        return self.work is None or not self.work_ratio <= thresholds.time_ratio_most

    @property
    def work_ratio(self) -> float:
        """The least processor time of a round of the challenger, over that of the champion."""
        assert self.work is not None
        return float(self.work[:, 0].min() / max(self.work[:, 1].min(), 1e-9))

    def to_json(self) -> dict[str, float]:
        """Medians and fastest rounds, as the manifest records them."""
        challenger, champion = np.median(self.times, axis=0).tolist()
        medians = {"challenger_p50": challenger, "champion_p50": champion}
        return medians | {"challenger": self.challenger, "champion": self.champion, "rounds": float(len(self.times))}


def race(challenger: Contender, champion: Contender, thresholds: Thresholds) -> dict[str, Pace]:
    """The pace of one image (the median of eight a round) and of a batch of 16, by name."""
    return {
        "one_image_ms": _pace((challenger, champion), _one_image, thresholds),
        f"batch_of_{BATCH}_ms": _pace((challenger, champion), _timed, thresholds),
    }


def _pace(both: tuple[Contender, Contender], measure: _Timer, thresholds: Thresholds) -> Pace:
    images = [one.read(np.resize(one.data.rows("test"), BATCH)) for one in both]
    lanes = [(one.runtime, pixels) for one, pixels in zip(both, images, strict=True)]
    on_cpu = all(one.choice.device == "cpu" for one in both)
    rounds = np.empty((0, 2, 2))
    start = perf_counter()
    while True:
        rounds = np.concatenate([rounds, _rounds(lanes, measure)])
        pace = Pace(rounds[..., 0], rounds[..., 1] if on_cpu else None)
        late = len(rounds) >= ROUNDS_MOST or perf_counter() - start > _SECONDS_MOST
        if late or not pace.slow(thresholds):
            return pace
        lanes = [(one.opened(), pixels) for one, pixels in zip(both, images, strict=True)]


def _rounds(lanes: list[_Lane], measure: _Timer) -> NDArray[np.float64]:
    """Both kinds of milliseconds of both releases, (7, 2, 2); the one that goes first changes with every round."""
    for lane in lanes:
        measure(*lane)  # the first passes make plans and touch memory
    times = np.empty((ROUNDS, 2, 2))
    for number in range(ROUNDS):
        for place in (0, 1) if number % 2 else (1, 0):
            times[number, place] = measure(*lanes[place])
    return times


def _one_image(runtime: Runtime, images: NDArray[np.uint8]) -> tuple[float, float]:
    wait, work = np.median([_timed(runtime, images[:1]) for _ in range(SINGLES)], axis=0)
    return float(wait), float(work)


def _timed(runtime: Runtime, images: NDArray[np.uint8]) -> tuple[float, float]:
    start, worked = perf_counter(), process_time()
    runtime(images)
    return 1000 * (perf_counter() - start), 1000 * (process_time() - worked)
