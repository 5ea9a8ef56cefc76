"""Fill a collection: embed the images that a data folder lists, store them, and build the index.

`python -m serving.ingest --release model_store/digits/1 --data runs/digits/data --collection runs/digits/collection`

The data folder is the one that `training.sources` writes; of it only `dataset.json` (where the images are) and
`items.jsonl` (id, label, split) are read. The exported file does the embedding, so what is stored is what the
server computes. Killed and run again it goes on where it stopped; images that did not change are not embedded
twice. Images that can't be read are listed; what was stored of them stays.
Left out: adding images while serving.
"""

import argparse
import hashlib
import json
import logging
import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving.catalogue import Catalogue, CatalogueError, Item
from serving.engine import Engine
from serving.images import ImageError, decode
from serving.machine import usable_cores
from serving.manifest import ManifestError
from serving.neighbours import IndexUnusable, build_base, open_base

_BATCH = 64


@dataclass(frozen=True)
class Listed:
    """One image to ingest: its id and label, and where its bytes are."""

    id: str
    label: str | None
    path: Path
    archive: zipfile.ZipFile | None
    member: str

    def read(self) -> bytes:
        """The source's bytes; raises `ImageError` if they can't be read."""
        try:
            return self.archive.read(self.member) if self.archive is not None else Path(self.member).read_bytes()
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ImageError(f"can't be read: {error}") from error

    @property
    def source(self) -> str:
        """How the catalogue names the source: a path, or archive!member."""
        return f"{self.path}!{self.member}" if self.archive is not None else self.member


@dataclass(frozen=True)
class Summary:
    """What an ingestion did."""

    items: int
    embedded: int
    unchanged: int
    removed: int
    unreadable: dict[str, str]


def listed(data: Path, splits: Sequence[str]) -> list[Listed]:
    """The images of a data folder that belong to one of `splits`."""
    try:
        about = json.loads((data / "dataset.json").read_text())
        lines = (data / "items.jsonl").read_text().splitlines()
    except FileNotFoundError as error:
        raise CatalogueError(f"{data} is no data folder: {error.filename} is missing") from error
    source, prefix = Path(about["source"]), about["prefix"]
    if not source.exists():  # an unmounted disk must not look like a collection whose images were all removed
        raise CatalogueError(f"{source}, where the images of {data} are, does not exist")
    archive = zipfile.ZipFile(source) if source.is_file() else None
    top = "/".join(part for part in ("" if archive is not None else str(source), prefix) if part)
    rows = (json.loads(line) for line in lines)
    return [
        Listed(row["id"], row["label"], source, archive, f"{top}/{row['id']}" if top else row["id"])
        for row in rows
        if row["split"] in splits
    ]


def ingest(engine: Engine, catalogue: Catalogue, images: Sequence[Listed]) -> Summary:
    """Make the collection hold exactly `images`, embedded by the engine's release, and build its base."""
    known = catalogue.known(engine.digest)
    unreadable: dict[str, str] = {}
    embedded = 0
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        tqdm(total=len(images), desc="embed", unit="image") as bar,
    ):
        for batch in _batches(images):
            prepared = list(pool.map(lambda image: _prepare(image, known, engine.manifest.input.size), batch))
            unreadable |= {entry.id: why for entry, why in zip(batch, prepared, strict=True) if isinstance(why, str)}
            fresh = [entry for entry in prepared if isinstance(entry, tuple)]
            if fresh:
                _store(engine, catalogue, fresh)
            embedded += len(fresh)
            bar.update(len(batch))
    removed = catalogue.keep_only(image.id for image in images)  # also those that can't be read just now
    _rebuild_unless_good(catalogue, engine.digest)
    unchanged = len(images) - len(unreadable) - embedded
    return Summary(catalogue.count(engine.digest), embedded, unchanged, removed, unreadable)


def _store(engine: Engine, catalogue: Catalogue, fresh: Sequence[tuple[Item, NDArray[np.uint8]]]) -> None:
    outputs = engine.embed(np.stack([array for _, array in fresh]))
    catalogue.upsert([item for item, _ in fresh], outputs.embedding, engine.digest)


def _prepare(image: Listed, known: dict[str, Item], size: int) -> tuple[Item, NDArray[np.uint8]] | str | None:
    """The item and its pixels; a reason if it can't be read; None if it is stored already, unchanged."""
    try:
        data = image.read()
        item = Item(image.id, image.label, image.source, hashlib.sha256(data).digest())
        return None if known.get(image.id) == item else (item, decode(data, size))
    except ImageError as error:
        return str(error)


def _rebuild_unless_good(catalogue: Catalogue, release: str) -> None:
    """Build the base again if it is absent, behind or damaged."""
    before = catalogue.base(release)
    try:
        open_base(catalogue, release)
    except IndexUnusable:
        build_base(catalogue, release)
        if before is not None:
            _forget(catalogue, before.file, release)


def _forget(catalogue: Catalogue, file: str, release: str) -> None:
    """Remove a base that no row names any more; a process that has it mapped keeps it until it closes."""
    current = catalogue.base(release)
    if current is not None and current.file != file:
        for suffix in (".faiss", ".rows.npy"):
            (catalogue.folder / file).with_suffix(suffix).unlink(missing_ok=True)


def _batches(images: Sequence[Listed]) -> Iterator[list[Listed]]:
    rest = iter(images)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.ingest",
        description="Embed images, store them in a collection, build its index.",
    )
    parser.add_argument("--release", type=Path, required=True, help="folder of the release that embeds")
    parser.add_argument("--data", type=Path, required=True, help="data folder written by training.sources")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection")
    parser.add_argument(
        "--splits", default="train,validation", help="which splits to take, by comma (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        summary = ingest(
            Engine.open(given.release),
            Catalogue(given.collection, create=True),
            listed(given.data, given.splits.split(",")),
        )
    except (ManifestError, CatalogueError, IndexUnusable, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, reason in list(summary.unreadable.items())[:10]:
        print(f"left out {name}: {reason}", file=sys.stderr)
    print(
        f"collection {given.collection}: {summary.items} items ({summary.embedded} embedded, {summary.unchanged} "
        f"unchanged, {summary.removed} removed, {len(summary.unreadable)} unreadable)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
