"""Pictures of a run: its loss curve, a t-SNE map of embeddings, a contact sheet of queries and neighbours.

Written as PNG without a display.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

Picture = NDArray[np.uint8]
Row = tuple[Picture, str, Sequence[tuple[Picture, str]]]  # a query, its caption, its neighbours with captions

_DPI = 110
_TSNE_MOST = 1000
_LEGEND_MOST = 20
_GREY, _BLUE, _ORANGE = "#6b7280", "#1d4ed8", "#ea580c"


def loss_curve(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """The loss and the learning rate by epoch, from the lines of log.jsonl."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [entry["epoch"] for entry in entries]
    axes.plot(epochs, [entry["loss"] for entry in entries], color=_BLUE, linewidth=1.6)
    axes.set_xlabel("epoch")
    axes.set_ylabel("NT-Xent loss", color=_BLUE)
    _plain(axes)
    rates = axes.twinx()
    rates.plot(epochs, [entry["lr"] for entry in entries], color=_ORANGE, linewidth=1, linestyle="--")
    rates.set_ylabel("learning rate", color=_ORANGE)
    rates.set_ylim(bottom=0)
    rates.spines[["top", "left"]].set_visible(False)
    _save(figure, path)


def tsne_map(
    h: NDArray[np.float32], labels: NDArray[np.int64] | None, classes: Sequence[str] | None, path: Path
) -> None:
    """A t-SNE map of at most 1,000 embeddings (N, D), evenly taken, coloured by label where there are labels.

    Fewer than 5 embeddings have no map worth drawing: nothing is written.
    """
    if len(h) < 5:
        return
    chosen = np.unique(np.linspace(0, len(h) - 1, _TSNE_MOST).astype(int))
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    with threadpool_limits(1):  # so few points gain nothing by threads, which wait for each other on a busy machine
        places = tsne.fit_transform(h[chosen])
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.subplots()
    if labels is None or classes is None:
        axes.scatter(places[:, 0], places[:, 1], s=14, color=_BLUE, alpha=0.7, linewidths=0)
    else:
        _coloured(axes, places, labels[chosen], classes)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"t-SNE of {len(chosen)} embeddings", loc="left", fontsize=11, color=_GREY)
    _save(figure, path)


def contact_sheet(rows: Sequence[Row], path: Path) -> None:
    """A row for each query: the image with its caption, then its neighbours with theirs, nearest first.

    Images are uint8 (H, W, 3) of any size. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("rows is empty; a contact sheet needs at least one query")
    columns = 1 + max(len(neighbours) for _, _, neighbours in rows)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, wspace=0, hspace=0)
    figure = Figure(figsize=(1.35 * columns + 0.35, 1.75 * len(rows) + 0.4), layout=layout)
    ratios = [1.0, 0.18, *[1.0] * (columns - 1)]
    grid = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=ratios)
    for line, (query, caption, neighbours) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        _picture(line[0], query, caption, edge=_ORANGE)
        for axes, (image, score) in zip(line[2:], neighbours, strict=False):
            _picture(axes, image, score, edge="#d1d5db")
    grid[0][0].annotate("query", (0.5, 1.08), xycoords="axes fraction", ha="center", color=_ORANGE, fontsize=9)
    if columns > 1:
        note = grid[0][2].annotate(
            "neighbours, nearest first",
            (0, 1.08),
            xycoords="axes fraction",
            ha="left",
            color=_GREY,
            fontsize=9,
        )
        note.set_in_layout(False)  # else its width would widen its column
    _save(figure, path)


def _picture(axes: Axes, image: Picture, caption: str, *, edge: str) -> None:
    axes.set_axis_on()
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_edgecolor(edge)
        spine.set_linewidth(2)
    axes.set_xlabel(caption, fontsize=8, labelpad=3, parse_math=False)


def _coloured(axes: Axes, places: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> None:
    colours = "tab10" if len(classes) <= 10 else "tab20" if len(classes) <= 20 else "turbo"
    most = 9 if len(classes) <= 10 else 19 if len(classes) <= 20 else len(classes) - 1
    dots = axes.scatter(
        places[:, 0], places[:, 1], c=labels, cmap=colours, vmin=0, vmax=most, s=16, alpha=0.85, linewidths=0
    )
    if len(classes) > _LEGEND_MOST:
        return
    handles = [
        axes.scatter([], [], color=dots.cmap(code / max(1, most)), s=30, label=name)
        for code, name in enumerate(classes)
    ]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, facecolor="white")
