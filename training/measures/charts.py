"""The charts of an evaluation as figures, in the colours of a light or of a dark page.

`training.measures.chart_files` writes them to files, `training.evaluation.pages` puts them into pages.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

_LEGEND_MOST, _NUMBERS_MOST, _NAMES_MOST = 20, 12, 40
_SIGNALS = {
    "knn": "online kNN accuracy",
    "alignment": "alignment (lower: views agree)",
    "uniformity": "uniformity (lower: spread out)",
    "spread": "spread (0: collapse)",
    "rankme": "RankMe (dimensions in use)",
}


class Theme(NamedTuple):
    """Colours: of text, of grids, of the two lines, and matplotlib's map for matrices."""

    ink: str
    grid: str
    first: str
    second: str
    matrix: str


LIGHT = Theme("#4b5563", "#e5e7eb", "#1d4ed8", "#c2410c", "Blues")
DARK = Theme("#c4cad4", "#343b47", "#7aa2ff", "#fb923c", "cividis")


@contextmanager
def drawn_in(theme: Theme) -> Iterator[None]:
    """Figures made and saved within the block have the theme's ink, and names in them are never read as TeX."""
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    settings: dict[Any, Any] = dict.fromkeys(ink, theme.ink) | {"text.parse_math": False}
    with mpl.rc_context(settings):
        yield


def loss_figure(entries: Sequence[dict[str, Any]], theme: Theme = LIGHT) -> Figure:
    """The loss with the floor it can't go below, and the learning rate, by epoch: from the lines of log.jsonl."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [entry["epoch"] for entry in entries]
    axes.plot(epochs, [entry["loss"] for entry in entries], color=theme.first, linewidth=1.6)
    floors = np.array([entry.get("floor") for entry in entries], float)  # None becomes NaN
    if np.isfinite(floors).any():
        axes.plot(epochs, floors, color=theme.ink, linewidth=1, linestyle=":")
        axes.annotate("floor", (epochs[-1], floors[-1]), ha="right", va="bottom", fontsize=9)
    axes.set_xlabel("epoch")
    axes.set_ylabel("NT-Xent loss", color=theme.first)
    _plain(axes, theme)
    rates = axes.twinx()
    rates.plot(epochs, [entry["lr"] for entry in entries], color=theme.second, linewidth=1, linestyle="--")
    rates.set_ylabel("learning rate", color=theme.second)
    rates.set_ylim(bottom=0)
    rates.spines[["top", "left"]].set_visible(False)
    return figure


def signals_figure(entries: Sequence[dict[str, Any]], theme: Theme = LIGHT) -> Figure | None:
    """Signals and online kNN by epoch, a small chart each; None where the log has none."""
    found = [name for name in _SIGNALS if any(name in entry for entry in entries)]
    if not found:
        return None
    rows = -(-len(found) // 2)
    figure = Figure(figsize=(7, 1.9 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False, sharex=True)
    for axes, name in zip(grid.flat, found, strict=False):
        measured = [entry for entry in entries if name in entry]
        axes.plot([e["epoch"] for e in measured], [e[name] for e in measured], color=theme.first, marker=".")
        axes.set_title(_SIGNALS[name], loc="left", fontsize=9)
        _plain(axes, theme)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    return figure


def map_figure(
    places: NDArray[np.float64], labels: NDArray[np.int64] | None, classes: Sequence[str] | None, theme: Theme = LIGHT
) -> Figure:
    """Points (N, 2), coloured by their label (N,) where there are labels."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.subplots()
    if labels is None or classes is None:
        axes.scatter(places[:, 0], places[:, 1], s=14, color=theme.first, alpha=0.7, linewidths=0)
    else:
        _coloured(axes, places, labels, classes)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"t-SNE of {len(places)} embeddings", loc="left", fontsize=11)
    return figure


def confusion_figure(counts: NDArray[np.int64], classes: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """Counts (C, C) as shares of their row; with numbers where there is room for them."""
    side = min(11.0, 3.2 + 0.42 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=theme.matrix, vmin=0, vmax=max(shares.max(), 0.01))
    if len(classes) <= _NUMBERS_MOST:
        for (row, column), count in np.ndenumerate(counts):
            red, green, blue, _ = image.cmap(image.norm(shares[row, column]))
            on_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(column, row, str(count), ha="center", va="center", color="w" if on_dark else "k", fontsize=8)
    if len(classes) <= _NAMES_MOST:
        names = [name if len(name) <= 20 else name[:19] + "…" for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=90)
        axes.set_yticks(range(len(classes)), names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("label")
    return figure


def _coloured(axes: Axes, places: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    colours = "tab10" if len(classes) <= 10 else "tab20" if len(classes) <= 20 else "turbo"
    most = 9 if len(classes) <= 10 else 19 if len(classes) <= 20 else len(classes) - 1
    dots = axes.scatter(
        places[:, 0], places[:, 1], c=labels, cmap=colours, vmin=0, vmax=most, s=16, alpha=0.85, linewidths=0
    )
    if len(classes) > _LEGEND_MOST:
        return
    handles = [axes.scatter([], [], color=dots.cmap(code / max(1, most)), s=30) for code in range(len(classes))]
    axes.legend(handles, list(classes), loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _plain(axes: Axes, theme: Theme) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
