"""A collection filled with given vectors, for benchmarks: items without pictures, each with a label and a number.

Written as a client's writes are: transactions of 1,000 items, each synced. It builds no base.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors

RELEASE = hashlib.sha256(b"benchmark").hexdigest()
BATCH = 1000
LABELS = 10


def item(number: int, *, kept: bool = False) -> Item:
    """Item `number`; one in ten has its label, and one in a thousand its `bin`. `kept` gives it 1,000 bytes to keep."""
    name = f"i{number}"
    source = Source(hashlib.sha256(name.encode()).digest(), 0, path=f"{name}.jpg")
    if kept:
        source = Source.kept(name.encode().ljust(1000), "image/jpeg")
    return Item(name, source, f"label{number % LABELS}", {"bin": number % 1000})


def fill(folder: Path, parts: Iterable[Vectors], *, count: int, release: str = RELEASE) -> Catalogue:
    """A collection of the vectors (N, D) in all parts, numbered in order; one that was begun is filled up."""
    catalogue = open_catalogue(folder, create=True)
    there, number = catalogue.items.count(), 0
    if there == count:
        return catalogue
    with tqdm(total=count, desc="fill", unit=" vectors", mininterval=5) as bar:
        for part in parts:
            for start in range(0, len(part), BATCH):
                vectors = part[start : start + BATCH]
                if number + len(vectors) > there:
                    catalogue.upsert([item(number + at) for at in range(len(vectors))], vectors, release)
                number += len(vectors)
                bar.update(len(vectors))
    return catalogue
