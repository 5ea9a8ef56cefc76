"""What a checkpoint's encoder is worth: kNN, probes, fine-tuning, transfer, signals, each beside its baselines.

Writes metrics.json, report.html, tsne.png and, with labels, probe.safetensors. What fits is fitted on train, what is
chosen is chosen on validation, and the test images are looked at once, for the numbers reported. A random encoder
and raw pixels (and the ImageNet weights that a run began from) stand in every table, so that a bad run can't look good.
Embeddings and finished tasks are kept in the folder of the evaluation, which goes on with the task it was stopped in.
"""

import json
import logging
from pathlib import Path
from typing import Any

from core.files.durable import publish_text, sha256_of
from core.files.json_text import json_text
from core.files.locks import locked
from training.data.dataset import Dataset
from training.evaluation.files import REPORT, intact, write_files
from training.evaluation.finished import VERSION
from training.evaluation.measurements import Extras, measure
from training.evaluation.representations import build_baselines, this_encoder
from training.evaluation.subject import Home, Subject
from training.evaluation.transfer import load_targets
from training.model.device import choose_device
from training.run.checkpoint import LoadedEncoder, load_encoder

logger = logging.getLogger(__name__)

METRICS, LOCK = "metrics.json", ".lock"
NOTHING_MORE = Extras()


def evaluate(
    dataset: Dataset,
    path: Path,
    out: Path,
    *,
    device: str = "auto",
    baselines: bool = True,
    extras: Extras = NOTHING_MORE,
) -> dict[str, Any]:
    """Evaluate the checkpoint at `path` on `dataset`, write the results to `out`, and return the metrics.

    The metrics (also metrics.json): "linear_probe" {"accuracy", "C", "validation_accuracy"}, "knn" {"k10", "k200"},
    "few_labels" and "fine_tuning" by share of the labels, "augmented_probe", "per_class", "confusion" (None without
    labels or unless asked for), "signals", "baselines" by name with the same, "transfer" by data set, "checkpoint",
    "dataset" and "probe_sha256" (digests), "counts", "files". Accuracies are shares in [0, 1], on test. Where all this
    is in `out` already for the same checkpoint, data and wishes, it is returned without work; what of it is there is
    reused.

    Raises ValueError for a device that is not there, if the image sizes of checkpoint and data differ, or another
    evaluation is at work in `out`; `CheckpointError` for a bad checkpoint; `SourceError` for a bad folder to transfer
    to; OSError if an image can't be read.
    """
    where = choose_device(device)
    loaded = load_encoder(path)
    _check_size(loaded, dataset)
    targets = load_targets(extras.transfer_to, image_size=dataset.image_size)
    request = _request(dataset, path, baselines=baselines, extras=extras) | {
        "transfer_to": [target.digest for target in targets.values()]
    }
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK, wait=False) as lock:
        if lock is None:
            raise ValueError(f"out is {out}, where another evaluation is at work; wait, or take another")
        done = _done(out, request)
        if done is not None:
            logger.info("already evaluated: %s", out / METRICS)
            return done
        for name in (METRICS, REPORT):
            (out / name).unlink(missing_ok=True)
        compared = build_baselines(dataset, loaded, where) if baselines else []
        own = this_encoder(loaded, request["checkpoint"], where)
        subjects = [Subject(one, dataset, Home(out)) for one in (own, *compared)]
        metrics = request | {"counts": dataset.facts["counts"]} | measure(subjects, loaded, extras, targets)
        metrics |= write_files(path, out, metrics, subjects[0], loaded)
        text = json_text(metrics, indent=1)
        publish_text(out / METRICS, text)  # last: with it, everything is there
    result: dict[str, Any] = json.loads(text)
    return result


def _request(dataset: Dataset, path: Path, *, baselines: bool, extras: Extras) -> dict[str, Any]:
    return {
        "checkpoint": sha256_of(path),
        "dataset": dataset.digest,
        "with_baselines": baselines,
        "augmented_passes": extras.augmented_passes,
        "fine_tune_epochs": extras.fine_tune_epochs,
        "evaluation": VERSION,
    }


def _done(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = json.loads((out / METRICS).read_text())
    except (OSError, ValueError):
        return None
    asked = all(metrics.get(key) == value for key, value in request.items())
    return metrics if asked and intact(out, metrics) else None


def _check_size(loaded: LoadedEncoder, dataset: Dataset) -> None:
    size = loaded.config.encoder.image_size
    if dataset.image_size != size:
        raise ValueError(
            f"the data has images of {dataset.image_size} px, the checkpoint learnt at {size} px; prepare the data "
            f"with --image-size {size}"
        )
