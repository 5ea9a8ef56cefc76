"""Pictures of a run as files: its loss curve, a t-SNE map of embeddings, a contact sheet of queries and neighbours.

Written as PNG without a display. The page with everything on it is `training.evaluation.report`'s.
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
from threadpoolctl import threadpool_limits

from training.measures.charts import LIGHT, drawn_in, loss_figure, map_figure

Picture = NDArray[np.uint8]
Row = tuple[Picture, str, Sequence[tuple[Picture, str]]]  # a query, its caption, its neighbours with captions

_DPI = 110
_TSNE_MOST = 1000
_GREY, _ORANGE = "#6b7280", "#ea580c"


def loss_curve(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """The loss, its floor and the learning rate by epoch, from the lines of log.jsonl."""
    with drawn_in(LIGHT):
        _save(loss_figure(entries), path)


def tsne_places(h: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The t-SNE map of at most 1,000 of the embeddings (N, D), evenly taken: their positions in h, and places (M, 2).

    Fewer than 5 embeddings have no map worth drawing: M is 0.
    """
    if len(h) < 5:
        return np.empty(0, np.int64), np.empty((0, 2))
    from sklearn.manifold import TSNE  # takes two seconds, which most readers of this module save

    chosen = np.unique(np.linspace(0, len(h) - 1, _TSNE_MOST).astype(np.int64))
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    with threadpool_limits(1):  # so few points gain nothing by threads, which wait for each other on a busy machine
        places = tsne.fit_transform(h[chosen])
    return chosen, np.asarray(places, dtype=np.float64)


def tsne_map(
    places: NDArray[np.float64], labels: NDArray[np.int64] | None, classes: Sequence[str] | None, path: Path
) -> None:
    """A picture of places (M, 2), coloured by label (M,) where there are labels."""
    with drawn_in(LIGHT):
        _save(map_figure(places, labels, classes), path)


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


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, facecolor="white")
