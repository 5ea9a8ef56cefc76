"""The evaluation as one page, report.html: every figure with its baselines, pictures, and what they mean.

What it is made of is in `training.evaluation.pages`; its figures come from metrics.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.splits import TEST
from training.evaluation.cautions import cautions, margin
from training.evaluation.confusion import worst_pairs
from training.evaluation.pages import Chart, draw_chart, render, thumbnail
from training.evaluation.representations import BASELINES, RANDOM
from training.evaluation.tables import tables
from training.measures.charts import confusion_figure, loss_figure, map_figure, signals_figure
from training.recipe.config import flatten
from training.run.checkpoint import LoadedEncoder

_TEMPLATE = Path(__file__).with_name("report.html.jinja")
_BARS_MOST, _PAIRS = 60, 10


@dataclass(frozen=True)
class Evidence:
    """What was found, for the page to tell. `log` is the run's, and may be empty.

    `places` are the t-SNE map's (M, 2) of `mapped` rows (M,); `samples` and `confused` are as
    `training.evaluation.neighbour_samples` gives them.
    """

    name: str
    metrics: dict[str, Any]
    dataset: Dataset
    loaded: LoadedEncoder
    log: Sequence[dict[str, Any]] = ()
    mapped: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    places: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    samples: Sequence[dict[str, Any]] = ()
    confused: Sequence[dict[str, Any]] = ()


def page(found: Evidence) -> str:
    """The page, as HTML. Raises OSError if an image on it can't be read."""
    metrics, dataset = found.metrics, found.dataset
    return render(
        _TEMPLATE,
        name=found.name,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=_facts(found),
        config=flatten(found.loaded.config),
        headlines=_headlines(metrics, dataset),
        cautions=cautions(metrics, dataset, found.loaded),
        tables=tables(metrics),
        charts=_charts(found),
        metrics=metrics,
        bars=_bars(metrics),
        tested=sum(value is not None for value in (metrics["per_class"] or {}).values()),
        chosen=_chosen(metrics),
        pairs=_pairs(metrics),
        samples=[_shown(one, dataset) for one in found.samples],
        confused=[_shown(one, dataset) for one in found.confused],
    )


def _facts(found: Evidence) -> dict[str, str]:
    """What was evaluated on what, for the page's head."""
    config, facts, dataset = found.loaded.config, found.loaded.metadata, found.dataset
    counts = ", ".join(f"{count:,} {split}" for split, count in found.metrics["counts"].items())
    labels = f"{len(dataset.classes)} labels" if dataset.classes else "no labels"
    return {
        "Data": f"{dataset.facts['name']}: {counts} images of {dataset.image_size} px, {labels}",
        "Encoder": f"{config.encoder.architecture}, stem {config.encoder.resolved_stem}, preset {config.preset}",
        "Run": f"step {facts['step']:,} of {facts['total_steps']:,}, {facts['seconds'] / 60:.1f} minutes",
        "Checkpoint": f"SHA-256 {found.metrics['checkpoint']}",
        "Data digest": f"SHA-256 {found.metrics['dataset']}",
    }


def _headlines(metrics: dict[str, Any], dataset: Dataset) -> list[dict[str, str]]:
    """The figures that stand first, each with its error and its baselines."""
    if metrics["linear_probe"] is None:
        return []
    count, found = len(dataset.rows(TEST)), []
    for title, measure, key in (("Linear probe", "linear_probe", "accuracy"), ("kNN, k=10", "knn", "k10")):
        value = metrics[measure][key]
        beside = [
            f"{name} {metrics['baselines'][name][measure][key]:.1%}"
            for name in BASELINES
            if name in metrics["baselines"]
        ]
        error = f"± {100 * margin(value, count):.1f} points"
        found.append({"title": title, "value": f"{value:.1%}", "error": error, "beside": ", ".join(beside)})
    return found


def _chosen(metrics: dict[str, Any]) -> bool:
    """Whether everything that is chosen was chosen on validation images: no, where a data set has none."""
    probes = [one["linear_probe"] for one in (metrics, *metrics["transfer"].values())]
    return all(probe is not None and probe["validation_accuracy"] is not None for probe in probes)


def _charts(found: Evidence) -> dict[str, Chart]:
    """The charts there is something for, by name."""
    dataset, counts, made = found.dataset, found.metrics["confusion"], {}
    if found.log:
        words = "The loss, its floor and the learning rate over the epochs of the run"
        made["loss"] = draw_chart(words, lambda theme: loss_figure(found.log, theme))
        words = "Signals and online kNN over the epochs of the run"
        made["signals"] = draw_chart(words, lambda theme: signals_figure(found.log, theme))
    if len(found.places):
        labels = None if dataset.labels is None else dataset.labels_of(found.mapped)
        words = f"A t-SNE map of {len(found.places)} embeddings"
        made["map"] = draw_chart(words, lambda theme: map_figure(found.places, labels, dataset.classes, theme))
    if counts is not None and dataset.classes is not None:
        matrix, names = np.array(counts), dataset.classes
        words = "The confusion matrix of the linear probe on the test images"
        made["confusion"] = draw_chart(words, lambda theme: confusion_figure(matrix, names, theme))
    return {name: chart for name, chart in made.items() if chart is not None}


def _bars(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Accuracy a label, lowest first; of very many labels those at both ends."""
    if metrics["per_class"] is None:
        return []
    random = (metrics["baselines"].get(RANDOM) or {}).get("per_class") or {}
    known = sorted((value, name) for name, value in metrics["per_class"].items() if value is not None)
    if len(known) > _BARS_MOST:
        known = known[: _BARS_MOST // 2] + known[-_BARS_MOST // 2 :]
    return [{"name": name, "share": value, "random": random.get(name)} for value, name in known]


def _pairs(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The most frequent confusions, in words."""
    if metrics["confusion"] is None:
        return []
    names = list(metrics["per_class"])
    pairs = worst_pairs(np.array(metrics["confusion"]), _PAIRS)
    return [pair._asdict() | {"true": names[pair.true], "predicted": names[pair.predicted]} for pair in pairs]


def _shown(one: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """A query and its neighbours as pictures with their labels, each neighbour right, wrong, or unknown (None)."""
    label = dataset.label_name(one["row"])
    neighbours = [
        thumbnail(dataset, row) | {"score": score, "right": None if label is None else dataset.label_name(row) == label}
        for row, score in one["neighbours"]
    ]
    return {**one, "query": thumbnail(dataset, one["row"]), "neighbours": neighbours}
