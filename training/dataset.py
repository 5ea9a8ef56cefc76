"""A data folder: images as one uint8 array on disk, and what is known of each.

    images.npy    uint8 (N, S, S, 3), RGB; memory-mapped, so N may be millions
    items.jsonl   one line a row of images.npy: {"id", "label", "split"}
    dataset.json  the rest, written last: a folder with it is complete

`training.sources` writes it; this module only reads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.folders import ImageSource, SourceError, member_path, open_source

IMAGES, ITEMS, FACTS = "images.npy", "items.jsonl", "dataset.json"


@dataclass(frozen=True)
class Dataset:
    """A prepared set of N square images of side S.

    `images` is uint8 (N, S, S, 3), a read-only memory map. `labels` is int64 (N,), indices into `classes`,
    or None. `facts` is the whole of dataset.json.
    """

    folder: Path
    images: NDArray[np.uint8]
    ids: list[str]
    splits: NDArray[np.str_]
    labels: NDArray[np.int64] | None
    facts: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, folder: Path | str) -> "Dataset":
        """Open a data folder; `SourceError` if it is not one, or not whole."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text())
            items = [json.loads(line) for line in (folder / ITEMS).read_text().splitlines()]
            images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder} is no data folder (python -m training.sources makes one): {error}") from error
        if len(images) != len(items):
            raise SourceError(f"{folder} has {len(images)} images but {len(items)} items; prepare it again")
        codes = {name: code for code, name in enumerate(facts["classes"] or [])}
        labels = np.array([codes[item["label"]] for item in items], dtype=np.int64) if codes else None
        splits = np.array([item["split"] for item in items])
        return cls(folder, images, [item["id"] for item in items], splits, labels, facts)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> list[str] | None:
        """The labels' names, in the order of their indices; None where there are no labels."""
        names: list[str] | None = self.facts["classes"]
        return names

    @property
    def image_size(self) -> int:
        """The side S of the images, in pixels."""
        return int(self.facts["image_size"])

    @property
    def digest(self) -> str:
        """SHA-256 over ids, labels, splits and pixels."""
        return str(self.facts["digest"])

    def rows(self, *splits: str) -> NDArray[np.int64]:
        """The rows of `images` in these splits ("train", "validation", "test"), int64, ascending."""
        return np.flatnonzero(np.isin(self.splits, splits)).astype(np.int64)

    def labels_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The label index of each row; ValueError in a set without labels."""
        if self.labels is None:
            raise ValueError(f"{self.folder} has no labels")
        return self.labels[rows]

    def read_item(self, item: str) -> bytes:
        """The bytes of the file that an id came from; KeyError if the set holds no such id."""
        if item not in self._known:
            raise KeyError(item)
        return self._source.read(member_path(self.facts["prefix"], item))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids)

    @cached_property
    def _source(self) -> ImageSource:
        return open_source(Path(self.facts["source"]))
