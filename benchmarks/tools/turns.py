"""Measuring several ways of doing the same in turn, so that what else the machine does falls on all of them alike."""

from collections.abc import Callable, Mapping
from statistics import median

Measures = Mapping[str, Callable[[], float]]


def in_turn(measures: Measures, repeats: int) -> dict[str, list[float]]:
    """Call every measure once a round, in order (A B A B ...), `repeats` rounds; all figures by name."""
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; accepted: 1 and more")
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def medians(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The median figure of each name."""
    return {name: median(values) for name, values in figures.items()}
