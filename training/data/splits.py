"""The splits of a set, and how images are held out by a seed alone; `training.data.layout` has what folders say."""

import hashlib

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = "train", "validation", "test"
UNLABELLED = "unlabelled"  # pretrained on like train; no label of it is known where others have one
VALIDATION_SHARE = 0.1
_ALWAYS_GIVES = 5  # a label with fewer images than this may stay in train whole


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
