"""What a reader of an evaluation should know before believing it, in plain words."""

import math
from typing import Any

from training.data.dataset import Dataset
from training.evaluation.label_splits import LabelSplits
from training.evaluation.measurements import signal_rows
from training.evaluation.representations import BASELINES, BEFORE, THIS
from training.measures.probe import INVERSE_REGULARISATION
from training.run.checkpoint import LoadedEncoder
from training.run.monitor import warnings

_WIDE = 0.02  # a 95% interval of +- 2 points
_PROBE_NAMES = {"linear_probe": ("accuracy", "linear probe"), "knn": ("k10", "kNN (k=10)")}


def margin(share: float, count: int) -> float:
    """Half the width of the 95% interval of a share found on `count` images (normal approximation, Agresti-Coull)."""
    n = count + 4
    p = (share * count + 2) / n
    return 1.96 * math.sqrt(p * (1 - p) / n)


def cautions(metrics: dict[str, Any], dataset: Dataset, loaded: LoadedEncoder) -> list[str]:
    """Every caution there is, the gravest first; none is the best case."""
    found = [_sentence(text) for text in warnings(metrics["signals"], len(signal_rows(dataset)))]
    found += _of_run(metrics, dataset, loaded)
    if metrics["linear_probe"] is None:
        return found
    splits = LabelSplits.of(dataset)
    assert splits is not None
    return found + _of_baselines(metrics, len(splits.test)) + _of_size(metrics, splits) + _of_regularisation(metrics)


def _of_run(metrics: dict[str, Any], dataset: Dataset, loaded: LoadedEncoder) -> list[str]:
    found, facts = [], loaded.metadata
    if facts["step"] < facts["total_steps"]:
        found.append(f"The run is not finished: step {facts['step']} of {facts['total_steps']}.")
    if facts["dataset"]["digest"] != dataset.digest:
        found.append(
            f"The encoder was trained on other data ({facts['dataset']['name']}). If that held these test images, "
            "every figure here is too good."
        )
    if loaded.config.encoder.weights == "imagenet" and metrics["baselines"] and BEFORE not in metrics["baselines"]:
        found.append(
            "The run began from ImageNet weights, which can't be fetched here: what they were worth before training is "
            "not among the baselines, and a random encoder is no measure of what the run added."
        )
    return found


def _of_baselines(metrics: dict[str, Any], count: int) -> list[str]:
    """Where the encoder is not clearly better than what the run taught nothing."""
    found = []
    for measure, (key, words) in _PROBE_NAMES.items():
        for name in (name for name in BASELINES if name in metrics["baselines"]):
            own, other = metrics[measure][key], metrics["baselines"][name][measure][key]
            if own <= other:
                found.append(f"By {words} the encoder is no better than {name}: {own:.1%} against {other:.1%}.")
            elif own - other < math.hypot(margin(own, count), margin(other, count)):
                found.append(f"By {words} the lead over {name} is within the error: {own:.1%} against {other:.1%}.")
    return found


def _of_size(metrics: dict[str, Any], splits: LabelSplits) -> list[str]:
    found = []
    wide = margin(metrics["linear_probe"]["accuracy"], len(splits.test))
    if wide > _WIDE:
        found.append(f"There are only {len(splits.test)} test images: accuracies are good to ±{wide:.1%} or so.")
    if not len(splits.validation):
        found.append("There are no validation images: regularisation was not chosen but taken from the middle.")
    unknown = sorted(set(splits.names(splits.test)) - {splits.classes[code] for code in splits.seen})
    if unknown:
        found.append(f"Labels in test that train does not have, and that count as wrong: {', '.join(unknown)}.")
    return found


def _of_regularisation(metrics: dict[str, Any]) -> list[str]:
    """Whose C was chosen at an end of the grid; where all validation images are right there is none better."""
    least, most, ends = min(INVERSE_REGULARISATION), max(INVERSE_REGULARISATION), []
    for where, one in {"": metrics, **{f" on {name}": to for name, to in metrics["transfer"].items()}}.items():
        for name, figures in {THIS: one, **one["baselines"]}.items():
            probe = figures["linear_probe"]
            if probe["C"] in (least, most) and probe["validation_accuracy"] not in (None, 1.0):
                ends.append(f"{name}{where} ({probe['C']:g})")
    if not ends:
        return []
    return [
        f"The regularisation C of some linear probes was chosen at an end of what was tried, {least:g} to {most:g}, "
        f"and one beyond might do better: {', '.join(ends)}."
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
