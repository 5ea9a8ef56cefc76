"""What an encoder is worth where few labels are known: 1% and 10% of them, drawn anew three times.

The share, right on average where it is no whole number of images, is of all that may be looked at: of train, to fit
on, and of validation, to choose the regularisation by, so that "1%" does not lean on ten times as many labels for its
choice.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.evaluation.label_splits import LabelSplits, Rows, fit_and_test

SHARES = {"1%": 0.01, "10%": 0.1}
SEEDS = (0, 1, 2)


def shares(splits: LabelSplits) -> dict[str, float]:
    """The shares that make sense, by name: those that come to an image a label or more, on average over the labels."""
    least = len(splits.seen)
    return {name: share for name, share in SHARES.items() if share * len(splits.train) >= least}


def few(splits: LabelSplits, share: float, *, seed: int) -> LabelSplits:
    """The same splits with a `share` of train and of validation: so much of every label, at least an image.

    Raises ValueError for a share that is not above 0, up to 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; accepted: above 0, to 1")
    rng = np.random.default_rng([seed, round(share * 1e6)])
    train = stratified(splits.train, splits.labels, share, rng=rng)
    return replace(splits, train=train, validation=stratified(splits.validation, splits.labels, share, rng=rng))


def stratified(rows: Rows, labels: NDArray[np.int64], share: float, *, rng: np.random.Generator) -> Rows:
    """A `share` of the rows of every label, at least one of each, ascending; `labels` (N,) is of all rows.

    What is no whole number of images is rounded up or down at random, so that each label has its share on average,
    and their sum is the share of all to within one image, but for labels that come to less than one.
    """
    members = [rows[labels[rows] == code] for code in np.unique(labels[rows])]
    ends = np.cumsum([0, *map(len, members)]) * share
    counts = np.maximum(1, np.diff(np.floor(ends + rng.random()).astype(np.int64)))
    chosen = [rng.permutation(some)[:count] for some, count in zip(members, counts, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else rows


def few_label_probes(h: NDArray[np.float32], splits: LabelSplits, *, name: str) -> dict[str, Any]:
    """By share the linear probe's test accuracy, mean over seeds; h (N, D) is of all images of the data set.

    {"1%": {"accuracy", "deviation" (standard, over seeds), "images" (fitted on, a mean too), "accuracies", "C"}, ...};
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
    """Runs that differ in their seed as one: mean "accuracy" and "images", "deviation" of accuracies, else lists."""
    accuracies = [run["accuracy"] for run in runs]
    lists = {key: [run[key] for run in runs] for key in runs[0] if key not in ("accuracy", "images")}
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies))
    images = round(float(np.mean([run["images"] for run in runs])))
    return {"accuracy": mean, "deviation": deviation, "images": images, "accuracies": accuracies} | lists


def _probe(h: NDArray[np.float32], splits: LabelSplits) -> dict[str, Any]:
    fit, share = fit_and_test(h, splits, quiet=True)
    return {"accuracy": share, "images": len(splits.train), "C": fit.c}
