"""Time of one image and of a batch, of two releases in turn in the same process.

On a machine that does other things besides, two measurements a minute apart differ more than two releases. So each
round times both, one right after the other, and what is judged is the median over rounds of their ratio.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from export.comparison.embedded import Contender
from serving.runtime import Runtime

ROUNDS, SINGLES, BATCH = 7, 8, 16


@dataclass(frozen=True)
class Pace:
    """Milliseconds of both (their median), and the median of the ratio challenger : champion of each round."""

    challenger: float
    champion: float
    ratio: float


def race(challenger: Contender, champion: Contender) -> dict[str, Pace]:
    """The pace of one image and of a batch of 16, by name."""
    both = [(one.runtime, _pixels(one)) for one in (challenger, champion)]
    return {"one_image_ms": _pace(both, _one_image), f"batch_of_{BATCH}_ms": _pace(both, _batch)}


def _pixels(contender: Contender) -> NDArray[np.uint8]:
    rows = contender.data.rows("test")
    return contender.read(np.resize(rows, BATCH))


def _pace(both: list[tuple[Runtime, NDArray[np.uint8]]], measure: Callable[..., float]) -> Pace:
    for runtime, images in both:
        measure(runtime, images)  # the first passes make plans and touch memory
    times = np.empty((ROUNDS, 2))
    for number in range(ROUNDS):
        for place in (0, 1) if number % 2 else (1, 0):
            times[number, place] = measure(*both[place])
    new, old = np.median(times, axis=0)
    return Pace(float(new), float(old), float(np.median(times[:, 0] / times[:, 1])))


def _one_image(runtime: Runtime, images: NDArray[np.uint8]) -> float:
    return float(np.median([_timed(runtime, images[:1]) for _ in range(SINGLES)]))


def _batch(runtime: Runtime, images: NDArray[np.uint8]) -> float:
    return _timed(runtime, images)


def _timed(runtime: Runtime, images: NDArray[np.uint8]) -> float:
    start = perf_counter()
    runtime(images)
    return 1000 * (perf_counter() - start)
