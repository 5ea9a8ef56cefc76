"""What the folders of a set of images say: splits and labels, as a person sees them who opens the folder.

The rule. Folders that hold everything are passed over. If the top folders are called train and, maybe, test and
validation (in the usual spellings), these are the splits; where train and another are there, what lies beside them
belongs to none. Below the splits, or at the top where there are none, the first folder is the label, if there are at
least two. A few pictures may lie outside of the label folders: they have no label. If they are more than a fifth,
nobody can have meant the folders as labels, and there are none; a remark says so.

A missing test split is held out of train, and a missing validation split (10%) after it: by label where there are
labels, in every case by the seed alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.splits import TEST, TRAIN, UNLABELLED, VALIDATION, VALIDATION_SHARE, held_out

logger = logging.getLogger(__name__)
SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training", "train_set", "training_set", "trainset"), TRAIN),
    **dict.fromkeys(("test", "testing", "test_set", "testing_set", "testset"), TEST),
    **dict.fromkeys(("val", "valid", "validation", "val_set", "valid_set", "validation_set"), VALIDATION),
}
_FEW = 5  # one in so many may lie outside of the label folders


@dataclass(frozen=True)
class Layout:
    """For each name its split or None, and its label or None, or no labels at all; and what a person should know."""

    splits: list[str | None]
    labels: list[str | None] | None
    remarks: list[str]


def read_layout(names: Sequence[str]) -> Layout:
    """Splits and labels from posix paths; they follow from the names alone, in whatever order."""
    inner = _unwrapped(names)
    splits = _splits(inner)
    if any(splits):
        inner = [_below(name) if split else "" for name, split in zip(inner, splits, strict=True)]
        for split in set(splits) - {None}:
            inner = _without_repeated(inner, splits, split)
        inner = _unwrapped(inner)
    labels = [_top(name) or None for name in inner]
    return Layout(splits, *_checked(names, labels))


def assign(names: Sequence[str], *, seed: int, hold_out: float) -> tuple[list[str], Sequence[str | None] | None]:
    """The split of every name, and its label or None for all; a warning says what the layout leaves out.

    `hold_out` is the share of train that becomes test where the names give no test split. Where there are labels, a
    picture without one is "unlabelled".
    """
    found = read_layout(names)
    for remark in found.remarks:
        logger.warning("%s", remark)
    labels = found.labels
    splits = np.array([split or TRAIN for split in found.splits], dtype=object)
    if labels is not None:
        splits[[label is None for label in labels]] = UNLABELLED
    codes = np.unique([label or "" for label in labels or [None] * len(names)], return_inverse=True)[1]
    for number, (split, share) in enumerate(((TEST, hold_out), (VALIDATION, VALIDATION_SHARE))):
        if split not in splits:
            rows = np.flatnonzero(splits == TRAIN)
            splits[rows[held_out(codes[rows], share, seed=seed + number)]] = split
    return list(splits), labels


def _checked(names: Sequence[str], labels: list[str | None]) -> tuple[list[str | None] | None, list[str]]:
    """The labels, unless there are fewer than two or too many pictures have none; and what is to be said of it."""
    stray = [name for name, label in zip(names, labels, strict=True) if label is None]
    if len(set(labels) - {None}) < 2:
        return None, []
    if not stray:
        return labels, []
    if len(stray) > max(1, len(names) // _FEW):
        return None, [
            f"{len(stray):,} of {len(names):,} images lie in no label folder (the first: {stray[0]}), so the folders "
            "are not taken for labels; put each image into a folder with the name of its label to have some"
        ]
    return labels, [
        f"{len(stray):,} of {len(names):,} images lie beside the label folders (the first: {stray[0]}); they are "
        "learnt from without a label"
    ]


def _splits(names: Sequence[str]) -> list[str | None]:
    """For each name its split where the top folders are splits, else None for all."""
    found = {SPLIT_FOLDERS.get(_top(name).lower()) for name in names if "/" in name}
    if TRAIN not in found or (None in found and len(found) < 3):
        return [None] * len(names)
    return [SPLIT_FOLDERS.get(_top(name).lower()) for name in names]


def _unwrapped(names: Sequence[str]) -> list[str]:
    """Take off the folders that hold all but what lies beside them, down to one that is a split."""
    rest = list(names)
    while len(tops := {_top(name) for name in rest if "/" in name}) == 1 and not _is_split(*tops):
        rest = [_below(name) if "/" in name else name for name in rest]
    return rest


def _without_repeated(names: list[str], splits: Sequence[str | None], split: str | None) -> list[str]:
    """Take off the folder that repeats a split's name below it, as in training_set/training_set."""
    tops = {_top(name) for name, of in zip(names, splits, strict=True) if of == split}
    if len(tops) != 1 or not _is_split(*tops):
        return names
    return [_below(name) if of == split else name for name, of in zip(names, splits, strict=True)]


def _is_split(folder: str) -> bool:
    return folder.lower() in SPLIT_FOLDERS


def _top(name: str) -> str:
    return name.split("/", 1)[0] if "/" in name else ""


def _below(name: str) -> str:
    return name.split("/", 1)[1]
