"""What an encoder is worth where few labels are known: 1% and 10% of them, drawn anew three times.

The share is of all that may be looked at: of train, to fit on, and of validation, to choose the regularisation by,
so that "1%" does not lean on ten times as many labels for its choice. Left out: semi-supervised training.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.evaluation.label_splits import LabelSplits, Rows
from training.probe import accuracy, fit_probe

SHARES = {"1%": 0.01, "10%": 0.1}
SEEDS = (0, 1, 2)


def shares(splits: LabelSplits) -> dict[str, float]:
    """The shares that make sense, by name: those that come to an image a label or more, without any rounding up."""
    least = len(splits.seen)
    return {name: share for name, share in SHARES.items() if share * len(splits.train) >= least}


def few(splits: LabelSplits, share: float, *, seed: int) -> LabelSplits:
    """The same splits with a `share` of train and of validation: so much of every label, at least one image of it.

    Raises ValueError for a share that is not above 0, up to 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; accepted: above 0, to 1")
    rng = np.random.default_rng([seed, round(share * 1e6)])
    train = stratified(splits.train, splits.labels, share, rng=rng)
    return replace(splits, train=train, validation=stratified(splits.validation, splits.labels, share, rng=rng))


def stratified(rows: Rows, labels: NDArray[np.int64], share: float, *, rng: np.random.Generator) -> Rows:
    """About a `share` of the rows of every label, at least one of each, ascending; `labels` (N,) is of all rows."""
    chosen = [
        rng.permutation(members)[: max(1, round(share * len(members)))]
        for members in (rows[labels[rows] == code] for code in np.unique(labels[rows]))
    ]
    return np.sort(np.concatenate(chosen)) if chosen else rows


def few_label_probes(h: NDArray[np.float32], splits: LabelSplits, *, name: str) -> dict[str, Any]:
    """By share the linear probe's test accuracy, mean over seeds; h (N, D) is of all images of the data set.

    {"1%": {"accuracy", "deviation" (standard, over seeds), "images" (labels fitted on), "accuracies", "C"}, ...};
    a share that is no image a label is left out. `name` is for the progress bar.
    """
    wanted = shares(splits)
    found = {}
    with tqdm(total=len(wanted) * len(SEEDS), desc=f"few labels, {name}", unit=" probes") as bar:
        for title, share in wanted.items():
            runs = []
            for seed in SEEDS:
                runs.append(_probe(h, few(splits, share, seed=seed)))
                bar.update()
            found[title] = mean_of(runs)
    return found


def mean_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs that differ in their seed as one: mean and standard deviation of "accuracy", the other values listed."""
    accuracies = [run["accuracy"] for run in runs]
    lists = {key: [run[key] for run in runs] for key in runs[0] if key not in ("accuracy", "images")}
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies))
    return {"accuracy": mean, "deviation": deviation, "images": runs[0]["images"], "accuracies": accuracies} | lists


def _probe(h: NDArray[np.float32], splits: LabelSplits) -> dict[str, Any]:
    train, validation = ((h[rows], splits.labels[rows]) for rows in (splits.train, splits.validation))
    fit = fit_probe(train, validation, splits.classes, quiet=True)
    found = accuracy(fit.probe, h[splits.test], splits.names(splits.test))
    return {"accuracy": found, "images": len(splits.train), "C": fit.c}
