"""A collection, frozen at one moment, as a data folder: what a retraining learns from.

Splits follow from an item's id alone (`training.data.splits.stable_split`), so the held-out images stay the same from
one retraining to the next, and what was ever trained on is never tested on. Labels are the items' own; an item without
one is pretrained on. Items that are replaced or deleted while their pictures are read take no row. What is
written after the moment of freezing is not in it; a new release embeds that later.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.images.folders import SourceError
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.pictures.frozen import CollectionSource, Frozen, FrozenItem, freeze
from training.data.dataset import Dataset
from training.data.listing import Listing
from training.data.prepare import Given, Request, prepare_given
from training.data.splits import UNLABELLED, stable_split

LABEL_LEAST = 5  # items of a label, for it to be learnt from


class FrozenCollection:
    """The items of a collection as `training.data.prepare` wants them: a source, a listing, and who belongs where."""

    def __init__(self, folder: Path) -> None:
        """Raises `CollectionError` for a folder that is none, `SourceError` for an empty one."""
        self._frozen: Frozen = freeze(open_catalogue(folder))
        if not self._frozen.items:
            raise SourceError(f"{folder} has no items: there is nothing to learn from")
        self.source = CollectionSource(folder, self._frozen)
        self.listing = Listing([item.id for item in self._frozen.items], "", {}, _fingerprint(self._frozen.items))
        self._labels = _usable_labels(self._frozen.items)

    @property
    def facts(self) -> dict[str, Any]:
        """What the data folder, and the release in the end, records of it."""
        labelled = sum(label is not None for label in self._labels.values())
        return {"seq": self._frozen.seq, "items": len(self._frozen.items), "labelled": labelled}

    def assign(self, names: Sequence[str], *, seed: int, hold_out: float) -> tuple[list[str], list[str | None] | None]:
        """The split of every name and its label; None in place of labels where there are too few to learn from."""
        splits = [stable_split(name, seed=seed, hold_out=hold_out) for name in names]
        labels = [self._labels[name] for name in names]
        if len({label for label in labels if label is not None}) < 2:
            return splits, None
        return [split if label is not None else UNLABELLED for split, label in zip(splits, labels, strict=True)], labels


def prepare_frozen(collection: Path | str, out: Path | str, *, request: Request | None = None) -> Dataset:
    """Write the data folder `out` from a collection as it is now, or reuse it if nothing was written since.

    Raises `CollectionError` for a folder that holds no collection, `SourceError` for an empty one.
    """
    folder, request = Path(collection).resolve(), request or Request()
    frozen = FrozenCollection(folder)
    facts = {"collection": frozen.facts | {"seed": request.seed, "hold_out": request.hold_out}}
    return prepare_given(Given(frozen.source, frozen.listing, frozen.assign, folder.name, facts), Path(out), request)


def _usable_labels(items: Sequence[FrozenItem]) -> dict[str, str | None]:
    """By id its label, where enough items have it."""
    counts = Counter(item.label for item in items)
    return {item.id: item.label if counts[item.label] >= LABEL_LEAST else None for item in items}


def _fingerprint(items: Sequence[FrozenItem]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr((item.id, item.label, item.sha256)).encode())
    return digest.hexdigest()
