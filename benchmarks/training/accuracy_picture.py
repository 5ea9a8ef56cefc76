"""A picture of accuracy over the minutes of training: our run's own kNN, and where every side ended."""

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#1d4ed8", "#ea580c", "#6b7280"
_DPI = 110


def accuracy_over_time(sides: dict[str, Any], untrained: dict[str, Any], path: Path) -> None:
    """Draw `sides` ("ours" with its "curve", "lightly") and the levels of `untrained` encoders as PNG."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    ours, colours = sides["ours"], {"ours": _BLUE, "lightly": _ORANGE}
    if ours["curve"]:
        minutes, accuracy = zip(*((seconds / 60, 100 * share) for seconds, share in ours["curve"]), strict=True)
        axes.plot(minutes, accuracy, color=_BLUE, linewidth=1.6, label="ours, kNN on validation images")
    for name, side in sides.items():
        minute = side["seconds"] / 60
        axes.plot(minute, 100 * side["linear_accuracy"], "o", color=colours[name], label=f"{name}, linear probe")
        axes.plot(minute, 100 * side["knn_accuracy"], "s", color=colours[name], label=f"{name}, kNN k=200")
    for (name, side), style in zip(untrained.items(), ("--", ":"), strict=True):
        level, label = 100 * side["linear_accuracy"], f"{name.replace('_', ' ')}, linear probe"
        axes.axhline(level, color=_GREY, linewidth=1, linestyle=style, label=label)
    axes.set_xlabel("minutes of training")
    axes.set_ylabel("accuracy, % (points and levels: test images)")
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=_DPI, facecolor="white")
