"""The charts of a comparison, in the colours of a light or of a dark page: accuracies, and the two runs' losses."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.measures.charts import LIGHT, Theme

Shares = tuple[float, float | None]


def bars_figure(shares: Mapping[str, Shares], theme: Theme = LIGHT) -> Figure:
    """Shares in [0, 1] by name, of the challenger and of the champion (None without one), as bars with their values."""
    figure = Figure(figsize=(7, 0.75 * len(shares) + 0.9), layout="constrained")
    axes = figure.subplots()
    for place, pair in enumerate(shares.values()):
        for value, offset, colour in zip(pair, (-0.2, 0.2), (theme.first, theme.second), strict=True):
            if value is not None:
                axes.barh(place + offset, 100 * value, height=0.36, color=colour)
                axes.annotate(f" {100 * value:.1f}%", (100 * value, place + offset), va="center", fontsize=9)
    axes.set_yticks(range(len(shares)), list(shares))
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xlabel("%, of test images")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def losses_figure(
    challenger: Sequence[Mapping[str, Any]], champion: Sequence[Mapping[str, Any]], theme: Theme = LIGHT
) -> Figure | None:
    """The loss of both runs by step, from the lines of their logs; None if neither has a log."""
    if not challenger and not champion:
        return None
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    for entries, name, colour in (
        (challenger, "challenger", theme.first),
        (champion, "champion", theme.second),
    ):
        if entries:
            steps, losses = ([entry[key] for entry in entries] for key in ("step", "loss"))
            axes.plot(steps, losses, color=colour, linewidth=1.6, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("NT-Xent loss")
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
