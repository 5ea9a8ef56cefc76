"""What a checkpoint's embeddings are worth: kNN, a linear probe, label-free signals, and baselines.

    python -m training.evaluate --data DIR --checkpoint FILE --out DIR

Writes probe.safetensors (with labels only), metrics.json and tsne.png. The probe is fitted on train, its
regularisation chosen on validation, and the test images are looked at once, for the numbers reported. The
same probe and kNN on a random encoder and on raw pixels stand in the same table, so that a bad run can't look
good. Left out: fine-tuning, augmented probes, transfer to another set.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from serving.durable import publish_text, sha256_of
from training.checkpoint import LoadedEncoder, load_encoder
from training.config import PretrainConfig
from training.dataset import Dataset
from training.device import choose_device
from training.embed import embed
from training.encoder import Encoder, build_encoder, freeze, place
from training.folders import TEST, TRAIN, VALIDATION
from training.knn import majority_accuracy, weighted_accuracy
from training.pixels import Normalisation, to_float
from training.probe import Fit, accuracy, fit_probe, save_probe
from training.report import tsne_map
from training.signals import alignment, spread, uniformity

logger = logging.getLogger(__name__)

PROBE, METRICS, TSNE_PICTURE = "probe.safetensors", "metrics.json", "tsne.png"
BASELINES_MOST = 5000  # images up to which baselines are on by default
_SIGNAL_IMAGES = 500
_PIXELS_SIDE = 32

Embeddings = NDArray[np.float32]


def evaluate(
    dataset: Dataset, path: Path, out: Path, *, device: str = "auto", baselines: bool | None = None
) -> dict[str, Any]:
    """Evaluate the checkpoint at `path` on `dataset`, write the results to `out`, and return the metrics.

    The metrics (also metrics.json): "linear_probe" {"accuracy", "C", "validation_accuracy"} or None, "knn"
    {"k10", "k200"} or None, "signals" {"alignment", "uniformity", "spread"}, "baselines" by name with the
    same, "checkpoint" and "dataset" (digests), "counts". Accuracies are shares in [0, 1], on test. Where all
    this is in `out` already for the same checkpoint and data, it is returned without work.

    Raises ValueError if the image sizes of checkpoint and data differ, `CheckpointError` for a bad
    checkpoint.
    """
    baselines = len(dataset) <= BASELINES_MOST if baselines is None else baselines
    request = {"checkpoint": sha256_of(path), "dataset": dataset.digest, "with_baselines": baselines}
    done = _done(out, request)
    if done is not None:
        logger.info("already evaluated: %s", out / METRICS)
        return done
    loaded = load_encoder(path)
    _check_size(loaded.config, dataset)
    out.mkdir(parents=True, exist_ok=True)
    (out / METRICS).unlink(missing_ok=True)
    where = choose_device(device)
    encoder, normalisation = place(loaded.encoder, where), Normalisation(loaded.mean, loaded.std)
    h = embed(encoder, dataset.images, normalisation)
    scores, fit = _scores(h, dataset)
    metrics = request | {"counts": dataset.facts["counts"], **scores}
    metrics["signals"] = _signals(encoder, h, dataset, loaded)
    metrics["baselines"] = _baselines(dataset, loaded, where) if baselines else {}
    _write(out, dataset, h, fit)
    publish_text(out / METRICS, json.dumps(metrics, indent=1))
    return metrics


def table(metrics: dict[str, Any]) -> str:
    """The metrics as text for a terminal: one line an encoder, then the signals."""
    lines = []
    if metrics["knn"] is not None:
        lines.append(f"{'test accuracy':<18}{'linear probe':>14}{'kNN k=10':>12}{'kNN k=200':>12}")
        for name, scores in {"this encoder": metrics, **metrics["baselines"]}.items():
            figures = (scores["linear_probe"]["accuracy"], scores["knn"]["k10"], scores["knn"]["k200"])
            lines.append(f"{name:<18}{figures[0]:>14.1%}{figures[1]:>12.1%}{figures[2]:>12.1%}")
    signals = ", ".join(f"{name} {value:.3f}" for name, value in metrics["signals"].items())
    return "\n".join([*lines, f"signals: {signals}"])


def _done(out: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        metrics: dict[str, Any] = json.loads((out / METRICS).read_text())
    except (OSError, ValueError):
        return None
    return metrics if all(metrics.get(key) == value for key, value in request.items()) else None


def _check_size(config: PretrainConfig, dataset: Dataset) -> None:
    if dataset.image_size != config.encoder.image_size:
        raise ValueError(
            f"the data has images of {dataset.image_size} px, the checkpoint learnt at "
            f"{config.encoder.image_size} px; prepare the data with --image-size {config.encoder.image_size}"
        )


def _scores(h: Embeddings, dataset: Dataset) -> tuple[dict[str, Any], Fit | None]:
    """kNN and probe accuracies of embeddings (N, D) of all images, on test; and the probe."""
    if dataset.labels is None or dataset.classes is None:
        return {"linear_probe": None, "knn": None}, None
    train, validation, test = (
        (h[rows], dataset.labels_of(rows)) for rows in map(dataset.rows, (TRAIN, VALIDATION, TEST))
    )
    if len(np.unique(train[1])) < 2:
        logger.warning("the training split has one label only: there is nothing to fit a probe on")
        return {"linear_probe": None, "knn": None}, None
    fit = fit_probe(train, validation, dataset.classes)
    wanted = [dataset.classes[code] for code in test[1]]
    memory = (np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]]))
    probed = {
        "accuracy": accuracy(fit.probe, test[0], wanted),
        "C": fit.c,
        "validation_accuracy": fit.validation_accuracy,
    }
    knn = {"k10": majority_accuracy(memory, test), "k200": weighted_accuracy(memory, test)}
    return {"linear_probe": probed, "knn": knn}, fit


def _signals(encoder: Encoder, h: Embeddings, dataset: Dataset, loaded: LoadedEncoder) -> dict[str, float]:
    rows = _unseen(dataset)[:_SIGNAL_IMAGES]
    normalisation = Normalisation(loaded.mean, loaded.std)
    aligned = alignment(encoder, dataset.images[rows], normalisation, views=loaded.config.views)
    return {"alignment": aligned, "uniformity": uniformity(h[rows]), "spread": spread(h[rows])}


def _baselines(dataset: Dataset, loaded: LoadedEncoder, device: torch.device) -> dict[str, Any]:
    """The same scores for an untrained encoder of the same architecture, and for the pixels themselves."""
    if dataset.labels is None:
        return {}
    config = replace(loaded.config.encoder, weights="random", zero_init_residual=False)
    untrained = place(freeze(build_encoder(config, seed=loaded.config.seed)), device)
    normalisation = Normalisation(loaded.mean, loaded.std)
    random = embed(untrained, dataset.images, normalisation, description="embedding, random encoder")
    return {
        "random encoder": _scores(random, dataset)[0],
        "raw pixels": _scores(_raw_pixels(dataset), dataset)[0],
    }


def _raw_pixels(dataset: Dataset) -> Embeddings:
    """Unit-norm, centred pixels, (N, D); images above 32 px are averaged down to 32 px first."""
    images = to_float(torch.from_numpy(np.array(dataset.images)))
    if dataset.image_size > _PIXELS_SIDE:
        images = F.interpolate(images, size=_PIXELS_SIDE, mode="area")
    flat = images.flatten(1)
    unit: Embeddings = F.normalize(flat - flat.mean(dim=0), dim=1).numpy()
    return unit


def _unseen(dataset: Dataset) -> NDArray[np.int64]:
    """Test rows, then validation rows: no probe was fitted on them. All rows if these are too few."""
    rows = np.concatenate([dataset.rows(TEST), dataset.rows(VALIDATION)])
    return rows if len(rows) >= 20 else dataset.rows(TEST, VALIDATION, TRAIN)


def _write(out: Path, dataset: Dataset, h: Embeddings, fit: Fit | None) -> None:
    if fit is None:
        (out / PROBE).unlink(missing_ok=True)
    else:
        save_probe(out / PROBE, fit.probe)
    rows = _unseen(dataset)
    labels = None if dataset.labels is None else dataset.labels_of(rows)
    tsne_map(h[rows], labels, dataset.classes, out / TSNE_PICTURE)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a data folder (python -m training.sources)")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N")
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, help="default: up to 5,000 images")
    options = parser.parse_args(arguments)
    try:
        dataset = Dataset.load(options.data)
        metrics = evaluate(dataset, options.checkpoint, options.out, device=options.device, baselines=options.baselines)
        print(table(metrics))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
