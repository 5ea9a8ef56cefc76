"""Labels and splits from the names of files, and seeded hold-outs where the names give none.

The rule. If everything lies under top folders called train and, maybe, test and val (valid, validation), these
are the splits. Below them, or at the top where there are none, the first folder is the label, provided that every
image is in a folder and that there are at least two. A missing test split is held out of train, and a missing
validation split (10%) after it: by label where there are labels, in every case by the seed alone.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "validation", "test"
UNLABELLED = "unlabelled"  # pretrained on like train; no label of it is known where others have one
SPLIT_FOLDERS = {
    "train": TRAIN,
    "test": TEST,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}
VALIDATION_SHARE = 0.1
_ALWAYS_GIVES = 5  # a label with fewer images than this may stay in train whole


def named_splits(names: Sequence[str]) -> list[str | None]:
    """For each name its split where the top folders are splits, else None for all."""
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in names}
    found = {SPLIT_FOLDERS.get(top.lower()) for top in tops}
    if None in found or TRAIN not in found:
        return [None] * len(names)
    return [SPLIT_FOLDERS[name.split("/", 1)[0].lower()] for name in names]


def named_labels(names: Sequence[str], splits: Sequence[str | None]) -> list[str] | None:
    """The label of each name: its first folder below the split; None where the names give no labels."""
    inner = [name.split("/", 1)[1] if split is not None else name for name, split in zip(names, splits, strict=True)]
    if not all("/" in name for name in inner):
        return None
    labels = [name.split("/", 1)[0] for name in inner]
    return labels if len(set(labels)) >= 2 else None


def assign(names: Sequence[str], *, seed: int, hold_out: float) -> tuple[list[str], list[str] | None]:
    """The split of every name ("train", "validation" or "test"), and its label or None for all.

    `hold_out` is the share of train that becomes test where the names give no test split.
    """
    given = named_splits(names)
    labels = named_labels(names, given)
    splits = np.array([split or TRAIN for split in given], dtype=object)
    codes = np.unique(labels, return_inverse=True)[1] if labels else np.zeros(len(names), dtype=np.int64)
    for number, (split, share) in enumerate(((TEST, hold_out), (VALIDATION, VALIDATION_SHARE))):
        if split not in splits:
            rows = np.flatnonzero(splits == TRAIN)
            splits[rows[held_out(codes[rows], share, seed=seed + number)]] = split
    return list(splits), labels


def stable_split(name: str, *, seed: int, hold_out: float) -> str:
    """The split of an id by its hash alone: it stays the same whatever else a growing collection holds."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < hold_out:
        return TEST
    return VALIDATION if place < hold_out + (1 - hold_out) * VALIDATION_SHARE else TRAIN


def held_out(codes: NDArray[np.int64], share: float, *, seed: int) -> NDArray[np.int64]:
    """Positions held out of `codes` (N,), an integer label each: about `share` of every label, sorted.

    At least one of every label that has 5 or more, and at least one in all where N is 2 or more; never all.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"hold_out is {share}; accepted: above 0, to 0.5")
    rng = np.random.default_rng(seed)
    chosen: list[NDArray[np.int64]] = []
    for code in np.unique(codes):
        members = rng.permutation(np.flatnonzero(codes == code))
        least = 1 if len(members) >= _ALWAYS_GIVES else 0
        chosen.append(members[: max(least, round(share * len(members)))])
    held = np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
    if not len(held) and len(codes) >= 2:
        held = rng.permutation(len(codes))[:1]
    return np.sort(held[: max(0, len(codes) - 1)]).astype(np.int64)
