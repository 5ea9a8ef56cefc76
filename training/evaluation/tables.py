"""The metrics of an evaluation as tables, for a terminal and for a page: every one with its baselines.

No cell is judged: that is for the reader, who finds the baselines beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training.evaluation.representations import THIS

Value = float | None
_FEW_FIRST = ("1%", "10%", "100%")


@dataclass(frozen=True)
class Table:
    """Rows of values under columns; `about` says in plain words what they are. `kind` "share" is shown in percent."""

    title: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Value, ...]], ...]
    kind: str = "share"

    def text(self, value: Value) -> str:
        """A value as it is shown."""
        if value is None:
            return "–"
        return f"{value:.1%}" if self.kind == "share" else f"{value:.3f}"

    def best(self, column: int) -> Value:
        """The largest value of a column of shares; None for other kinds, where larger need not be better."""
        values = [value for _, row in self.rows if (value := row[column]) is not None]
        return max(values, default=None) if self.kind == "share" and len(values) > 1 else None

    def plain(self) -> str:
        """The table for a terminal."""
        first = max(18, *(len(name) + 2 for name in (self.title, *(name for name, _ in self.rows))))
        widths = [max(12, len(column) + 2) for column in self.columns]
        lines = [f"{self.title:<{first}}" + _cells(self.columns, widths)]
        for name, values in self.rows:
            lines.append(f"{name:<{first}}" + _cells([self.text(value) for value in values], widths))
        return "\n".join(lines)


def tables(metrics: dict[str, Any]) -> list[Table]:
    """The tables of metrics.json, those that have something in them."""
    subjects = {THIS: metrics, **metrics["baselines"]}
    found = []
    if metrics["knn"] is not None:
        found = [_accuracies(subjects), _few(subjects), _fine_tuning(subjects)]
        found += [_accuracies({THIS: to, **to["baselines"]}, title=f"on {name}") for name, to in _moved(metrics)]
        found += [_few({THIS: to, **to["baselines"]}, title=f"few labels on {name}") for name, to in _moved(metrics)]
    found.append(_signals(subjects))
    return [table for table in found if table.columns]


def in_terminal(metrics: dict[str, Any]) -> str:
    """The metrics as text: a table for each measurement, one line for each encoder, then this encoder's signals."""
    *accuracies, signals = tables(metrics)
    shown = ", ".join(f"{name} {signals.text(value)}" for name, value in metrics["signals"].items())
    return "\n\n".join([*(one.plain() for one in accuracies), f"signals: {shown}"])


def _accuracies(subjects: dict[str, Any], title: str = "test accuracy") -> Table:
    about = (
        "The share of test images that get their label. Linear probe: a linear classifier on the frozen embedding. "
        "kNN: the label of the nearest training images, by majority of 10 or weighted over 200; nothing is fitted."
    )
    readings: dict[str, Callable[[Any], Value]] = {
        "linear probe": lambda one: _of(one["linear_probe"]),
        "augmented probe": lambda one: _of(one.get("augmented_probe")),
        "kNN k=10": lambda one: _of(one["knn"], "k10"),
        "kNN k=200": lambda one: _of(one["knn"], "k200"),
    }
    if all(one.get("augmented_probe") is None for one in subjects.values()):
        del readings["augmented probe"]
    else:
        about += " Augmented probe: the same with random crops of the training images."
    if title != "test accuracy":
        about = "Another data set, with its own training, validation and test images; the encoder is as it was."
    return _table(title, about, readings, subjects)


def _few(subjects: dict[str, Any], title: str = "few labels") -> Table:
    own = subjects[THIS]["few_labels"] or {}
    about = (
        "A linear probe that may see only a share of the training and validation labels (in brackets: the training "
        "images fitted on); the mean over three draws of them."
    )
    readings = {
        _of_labels(share, own): lambda one, share=share: _of(one["few_labels"].get(share))
        for share in _FEW_FIRST
        if share in own
    }
    return _table(title, about, readings, subjects)


def _fine_tuning(subjects: dict[str, Any]) -> Table:
    tuned = subjects[THIS].get("fine_tuning") or {}
    about = (
        "The whole encoder trained further on images with labels, as many as in brackets. The baselines' encoders are "
        "trained by the same code for as many epochs, the random one from scratch; pixels have nothing to train."
    )
    readings = {
        _of_labels(share, tuned): lambda one, share=share: _of((one.get("fine_tuning") or {}).get(share))
        for share in _FEW_FIRST
        if share in tuned
    }
    return _table("fine-tuning", about, readings, subjects)


def _signals(subjects: dict[str, Any]) -> Table:
    about = (
        "Measured without labels, on test and validation images (the latter were seen in pretraining), or on all where "
        "these are few. Alignment: the squared distance between two views of an image (0 to 4, low is good; 2 is "
        "chance). Uniformity: how evenly the embeddings fill the sphere (low is good, 0 is collapse). Spread: 1 is "
        "even, 0 is collapse. RankMe: how many dimensions are in use. No single one is good by itself: a random "
        "encoder may align well by seeing little."
    )
    names = {"alignment": "alignment", "uniformity": "uniformity", "spread": "spread", "rankme": "RankMe"}
    readings = {title: lambda one, key=key: _of(one["signals"], key) for key, title in names.items()}
    return _table("signals", about, readings, subjects, kind="number")


def _of_labels(share: str, found: dict[str, Any]) -> str:
    return f"{share} of labels ({found[share]['images']:,})"


def _table(title: str, about: str, readings: dict[str, Any], subjects: dict[str, Any], *, kind: str = "share") -> Table:
    rows = tuple((name, tuple(read(one) for read in readings.values())) for name, one in subjects.items())
    return Table(title, about, tuple(readings), rows, kind)


def _of(found: dict[str, Any] | None, key: str = "accuracy") -> Value:
    return None if found is None or found[key] is None else float(found[key])


def _moved(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, to) for name, to in metrics["transfer"].items() if to["knn"] is not None]


def _cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))
