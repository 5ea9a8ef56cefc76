"""The linear probe: multinomial logistic regression on frozen embeddings.

Fitted on standardised embeddings, for its regularisation to treat every dimension alike; the standardisation
is then folded into weight and bias, so that logits = h @ weight.T + bias on the unit-norm embedding itself.
The regularisation is chosen on the validation embeddings. The test embeddings never come here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from core.files.durable import publish_file

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

FORMAT = "simclr-probe/2"
_FIRST = "simclr-probe/1"  # still read: it had its name and the classes in two entries of the header
INVERSE_REGULARISATION = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS = 300
_THREADS_FROM = 20_000_000  # numbers in the embeddings


@dataclass(frozen=True)
class Probe:
    """weight float32 (C, D), bias float32 (C,), and the C labels' names."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    classes: tuple[str, ...]

    def logits(self, h: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit-norm embeddings (N, D) to logits (N, C)."""
        return h @ self.weight.T + self.bias


@dataclass(frozen=True)
class Fit:
    """A probe, its inverse regularisation C, and the accuracy that chose C (None: no validation images)."""

    probe: Probe
    c: float
    validation_accuracy: float | None


def fit_probe(
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    validation: tuple[NDArray[np.float32], NDArray[np.int64]],
    classes: Sequence[str],
    *,
    grid: Sequence[float] = INVERSE_REGULARISATION,
    quiet: bool = False,
) -> Fit:
    """Fit a probe on train, choosing C from `grid` by accuracy on validation (the smaller C of equals).

    Args:
        train: embeddings (N, D) and label indices (N,).
        validation: the same; may be empty, and then the middle of `grid` is taken.
        classes: the labels' names by index. The probe has those that occur in train.
        quiet: show no progress bar.

    Raises:
        ValueError: train has fewer than two labels.
    """
    seen = np.unique(train[1])
    if len(seen) < 2:
        raise ValueError(f"train has {len(seen)} labels; a probe needs at least 2")
    names = tuple(classes[code] for code in seen)
    if not len(validation[1]):
        c = sorted(grid)[len(grid) // 2]
        return Fit(fold(fit_pipeline(*train, c=c), names), c, None)
    best: Fit | None = None
    for c in tqdm(sorted(grid), desc="fitting the probe", unit=" fits", disable=quiet):
        probe = fold(fit_pipeline(*train, c=c), names)
        accuracy = float(np.mean(seen[probe.logits(validation[0]).argmax(axis=1)] == validation[1]))
        if best is None or accuracy > (best.validation_accuracy or 0):
            best = Fit(probe, c, accuracy)
    assert best is not None
    return best


def accuracy(probe: Probe, h: NDArray[np.float32], labels: Sequence[str]) -> float:
    """The share of embeddings (N, D) whose largest logit is their label's, by name."""
    predicted = np.array(probe.classes)[probe.logits(h).argmax(axis=1)]
    return float(np.mean(predicted == np.array(labels)))


def fit_pipeline(h: NDArray[np.float32], labels: NDArray[np.int64], *, c: float) -> "Pipeline":
    """Standardisation and logistic regression (L-BFGS, L2)."""
    from sklearn.linear_model import LogisticRegression  # scikit-learn takes two seconds, and most only load probes
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=_ITERATIONS, tol=1e-3))
    # L-BFGS is many short products: below this size threads gain nothing, and on a busy machine they wait for
    # each other (measured: 147 s in place of 3 s beside one other job on two cores).
    with threadpool_limits(1 if h.size < _THREADS_FROM else None):
        return pipeline.fit(h, labels)


def fold(pipeline: "Pipeline", classes: tuple[str, ...]) -> Probe:
    """The pipeline's decision function as one weight and bias.

    scikit-learn keeps one row for two labels; half of it with each sign gives the same probabilities.
    """
    scaler, regression = pipeline[0], pipeline[1]
    weight, bias = regression.coef_, regression.intercept_
    if len(classes) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return fold_in(weight, bias, mean=scaler.mean_, scale=scaler.scale_, classes=classes)


def fold_in(
    weight: NDArray[Any], bias: NDArray[Any], *, mean: NDArray[Any], scale: NDArray[Any], classes: tuple[str, ...]
) -> Probe:
    """The probe whose logits of h are those of weight (C, D) and bias (C,) on (h - mean) / scale."""
    weight = weight / scale
    bias = bias - weight @ mean
    return Probe(weight.astype(np.float32), bias.astype(np.float32), classes)


def save_probe(path: Path, probe: Probe) -> None:
    """Write a probe as safetensors, its classes in the header, by rename; the same probe is the same bytes."""
    tensors = {"weight": np.ascontiguousarray(probe.weight), "bias": probe.bias}
    header = {FORMAT: json.dumps(probe.classes, allow_nan=False)}  # one entry: safetensors writes several in any order
    publish_file(path, lambda partial: save_file(tensors, partial, header))


def load_probe(path: Path | str) -> Probe:
    """Read a probe; ValueError for a file that is missing, broken or something else."""
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            classes = header.get("classes" if header.get("format") == _FIRST else FORMAT)
            if classes is None:
                raise ValueError(f"{path} has the header {header}; a probe's, {FORMAT!r}, is needed")
            return Probe(file.get_tensor("weight"), file.get_tensor("bias"), tuple(json.loads(classes)))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no readable probe: {error}") from error
