"""A data folder: images as one uint8 array on disk, and what is known of each.

    images.npy    uint8 (N, S, S, 3), RGB; memory-mapped, so N may be millions
    items.jsonl   one line a row of images.npy: {"id", "label", "split", "sha256"}; "unlabelled" ones have no label, and
                  "sha256", of the image's file, is missing in older folders
    dataset.json  the rest, written last: a folder with it is complete

`training.data.prepare` writes it; this module only reads. The images are one file and not shards of some thousands:
a memory map reads only the pages that are asked for, whatever the file's length, and a batch drawn at random
is one index into one array. Shards are for what has to be read front to back, from a network or compressed.
Of a million items, `load` keeps 140 MB: their ids as text, labels and splits as numbers.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.folders import ImageSource, SourceError, open_source
from core.images.seen import Contents, contents
from training.data.listing import member_path
from training.data.splits import TEST, TRAIN, UNLABELLED, VALIDATION

IMAGES, ITEMS, FACTS = "images.npy", "items.jsonl", "dataset.json"
SPLITS = (TRAIN, VALIDATION, TEST, UNLABELLED)
NO_LABEL = -1


@dataclass(frozen=True)
class Dataset:
    """A prepared set of N square images of side S.

    `images` is uint8 (N, S, S, 3), a read-only memory map. `labels` is int64 (N,), indices into `classes`,
    or None; -1 in the split "unlabelled" only. `facts` is the whole of dataset.json.
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
        except (OSError, ValueError) as error:
            raise SourceError(f"{folder} is no data folder (simclr prepare makes one): {error}") from error
        try:
            images = _open_images(folder / IMAGES, int(facts["image_size"]))
            ids, splits, labels = _read_items(folder / ITEMS, facts["classes"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{folder} is damaged: {_reason(error)}; prepare it again") from error
        if len(images) != len(ids):
            raise SourceError(f"{folder} has {len(images)} images but {len(ids)} items; prepare it again")
        return cls(folder, images, ids, splits, labels, facts)

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
        """The rows of `images` in these splits ("train", "validation", ...), int64, ascending."""
        return np.flatnonzero(np.isin(self.splits, splits)).astype(np.int64)

    def labels_of(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """The label index of each row; ValueError in a set without labels."""
        if self.labels is None:
            raise ValueError(f"{self.folder} has no labels")
        return self.labels[rows]

    def label_name(self, row: int) -> str | None:
        """The label of a row; None where it has none."""
        if self.labels is None or self.classes is None or self.labels[row] == NO_LABEL:
            return None
        return self.classes[int(self.labels[row])]

    def read_item(self, item: str) -> bytes:
        """The bytes of the file that an id came from; KeyError if the set holds no such id.

        ValueError for a set that was frozen from a collection: its pictures are in the collection, by their ids.
        """
        if item not in self._known:
            raise KeyError(item)
        return self._source.read(member_path(self.facts["prefix"], item))

    def contents(self) -> Contents | None:
        """Which pictures these are, uint64 (N,), a row each (`core.images.seen`); None in an older folder."""
        try:
            return contents(bytes.fromhex(item["sha256"][:16]) for item in _lines(self.folder / ITEMS))
        except KeyError:
            return None

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids)

    @cached_property
    def _source(self) -> ImageSource:
        if self.facts.get("collection"):
            raise ValueError(f"{self.folder} was frozen from the collection {self.facts['source']}, not from files")
        return open_source(Path(self.facts["source"]))


def _open_images(path: Path, size: int) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
        raise ValueError(f"{path.name} is {images.dtype} {images.shape}; uint8 (N, {size}, {size}, 3) is needed")
    return images


def _read_items(path: Path, classes: list[str] | None) -> tuple[list[str], NDArray[np.str_], NDArray[np.int64] | None]:
    """Ids, splits and label indices, line by line: the parsed lines are never in memory together."""
    codes = {name: code for code, name in enumerate(classes or [])}
    names = {split: code for code, split in enumerate(SPLITS)}
    ids: list[str] = []
    splits, labels = array("b"), array("q")
    for item in _lines(path):
        ids.append(item["id"])
        splits.append(names[item["split"]])
        if codes:
            labels.append(NO_LABEL if item["split"] == UNLABELLED else codes[item["label"]])
    named = np.array(SPLITS)[np.frombuffer(splits, dtype=np.int8)]
    return ids, named, np.array(labels, dtype=np.int64) if codes else None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _reason(error: Exception) -> str:
    """An error in words; a KeyError or a TypeError alone does not say what it is about."""
    return str(error) if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {error}"
