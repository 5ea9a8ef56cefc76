"""Fill a collection without a server, or beside one: embed images, store them, and bring the index up to date.

`python -m serving.ingest --release model_store/digits/1 --collection runs/digits/collection ~/photographs`
`python -m serving.ingest --release model_store/digits/1 --collection runs/digits/collection --data runs/digits/data`

Takes a folder, a zip, or a data folder that `training.data.prepare` wrote. The exported file does the embedding, so
what is stored is what the server computes. Pictures stay where they are; the catalogue has their paths. Killed and run
again it goes on where it stopped: files that did not change are not embedded twice. Files that can't be read are
listed; what was stored of them stays. Metadata given elsewhere stays, too. Left out: sending images to a server
elsewhere (`python -m serving.client ingest`).
"""

import argparse
import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.images.decode import ImageError
from core.images.folders import SourceError, UnreadableFile
from core.machine.machine import usable_cores
from core.releases.manifest import ManifestError
from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.catalogue.sqlite.catalogue import Catalogue
from serving.collection.catalogue.sqlite.vectors import Vectors
from serving.collection.errors import CollectionError, IndexUnusable
from serving.collection.index.faiss.compaction import Policy, compact, wait_for_another
from serving.collection.index.faiss.neighbours import Neighbours
from serving.engine import Engine
from serving.jobs.ingest.sources import Images, Listed, data_folder, image_files, in_batches
from serving.operations.pictures import media_type_of

_BATCH = 64
_BATCHES_AHEAD = 2
_PAGE = 10_000
_TOLD = 10


@dataclass
class Summary:
    """What an ingestion did; `unreadable` has a reason by id."""

    items: int = 0
    embedded: int = 0
    unchanged: int = 0
    removed: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _File:
    """A file as it was read: its bytes, or why there are none."""

    listed: Listed
    content: bytes
    unreadable: str | None = None


def ingest(engine: Engine, catalogue: Catalogue, images: Images, *, prune: bool = True) -> Summary:
    """Have the collection hold `images`, embedded by the engine's release, and its base up to date.

    With `prune`, items whose files lie in the same source but are not among `images` are removed.
    """
    summary = Summary()
    catalogue.open_space(engine.space)
    with tqdm(total=len(images.listed), desc="embed", unit="image") as bar:
        for batch in _read_ahead(images):
            _store(engine, catalogue, images, batch, summary)
            bar.update(len(batch))
    if prune:
        summary.removed = _remove_others(catalogue, images)
    bring_up_to_date(catalogue, engine.space)
    summary.items = len(catalogue.census(engine.space).rows)
    return summary


def bring_up_to_date(catalogue: Catalogue, release: str) -> None:
    """Build the base if there is none, if it is damaged, or if much was written since."""
    while _wants_base(catalogue, release) and not compact(catalogue, release):
        wait_for_another(catalogue.folder)


def _wants_base(catalogue: Catalogue, release: str) -> bool:
    if catalogue.base(release) is None:
        return len(catalogue.census(release).rows) > 0
    try:
        neighbours = Neighbours(catalogue, release)
    except IndexUnusable:
        return True
    try:
        return Policy().due(neighbours.sizes)
    finally:
        neighbours.close()


def _read_ahead(images: Images) -> Iterator[list[_File]]:
    """Batches of files, those to come being read while one is embedded."""
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="read") as pool:
        ahead: deque[list[Future[_File]]] = deque()
        for batch in in_batches(images.listed, _BATCH):
            ahead.append([pool.submit(_read, images, listed) for listed in batch])
            if len(ahead) > _BATCHES_AHEAD:
                yield [future.result() for future in ahead.popleft()]
        while ahead:
            yield [future.result() for future in ahead.popleft()]


def _read(images: Images, listed: Listed) -> _File:
    try:
        return _File(listed, images.read(listed))
    except (UnreadableFile, ValueError) as error:  # ValueError of a name that can be no path
        return _File(listed, b"", f"can't be read: {error}")


def _store(engine: Engine, catalogue: Catalogue, images: Images, files: Sequence[_File], summary: Summary) -> None:
    """One transaction for what is new of a batch, or has a new label or place."""
    made = _items(catalogue, images, files, summary)
    digests = catalogue.digests_of([item.id for _, item in made], engine.space)
    known = [item.id for _, item in made if digests.get(item.id) == item.source.sha256]
    vectors: dict[str, Vectors] = catalogue.vectors_of(known, engine.space)
    fresh = [(file, item) for file, item in made if item.id not in vectors]
    for (_, item), outputs in zip(fresh, engine.embed_files([file.content for file, _ in fresh]), strict=True):
        if isinstance(outputs, ImageError):
            summary.unreadable[item.id] = str(outputs)
        else:
            vectors[item.id] = outputs.embedding
            summary.embedded += 1
    summary.unchanged += len(made) - len(fresh)
    good = [item for _, item in made if item.id in vectors]
    if good:
        catalogue.upsert(good, np.stack([vectors[item.id] for item in good]), engine.space)


def _items(catalogue: Catalogue, images: Images, files: Sequence[_File], summary: Summary) -> list[tuple[_File, Item]]:
    """The files that can be stored, as items that keep the metadata they have; the others go to the summary."""
    stored = catalogue.get_many([file.listed.id for file in files])
    made: list[tuple[_File, Item]] = []
    for file in files:
        listed = file.listed
        source = Source.at(images.path_of(listed), file.content, media_type_of(file.content))
        item = Item(listed.id, source, listed.label, stored[listed.id].metadata if listed.id in stored else {})
        if (problem := file.unreadable or _problem(item)) is not None:
            summary.unreadable[listed.id] = problem
        else:
            made.append((file, item))
    return made


def _problem(item: Item) -> str | None:
    try:
        encode_item(item)
    except CollectionError as error:
        return str(error)
    return None


def _remove_others(catalogue: Catalogue, images: Images) -> int:
    """Of the items whose files lie in the source, also those that can't be read just now stay."""
    wanted = {listed.id for listed in images.listed}
    gone, cursor = 0, None
    while True:
        page = catalogue.list_items(limit=_PAGE, cursor=cursor)
        others = [item.id for item in page.items if images.owns(item.source.path or "") and item.id not in wanted]
        if others:
            gone += catalogue.delete(others).count
        if (cursor := page.cursor) is None:
            return gone


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.ingest",
        description="Embed images, store them in a collection, bring its index up to date.",
    )
    parser.add_argument("path", type=Path, nargs="?", metavar="PATH", help="folder or zip of images")
    parser.add_argument("--data", type=Path, help="instead of PATH, a data folder written by training.data.prepare")
    parser.add_argument("--release", type=Path, required=True, help="folder of the release that embeds")
    parser.add_argument("--collection", type=Path, required=True, help="folder of the collection, which may be new")
    parser.add_argument(
        "--splits", default="train,validation", help="which splits of --data to take, by comma (default: %(default)s)"
    )
    parser.add_argument("--labels", action="store_true", help="the folder of PATH that an image lies in is its label")
    parser.add_argument("--prefix", default="", help="put before each path inside PATH to make the image's id")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove items that came from PATH and are no longer in it (always of --data)",
    )
    given = parser.parse_args(arguments)
    if (given.path is None) == (given.data is None):
        parser.error("give either PATH or --data")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = _arguments(arguments)
    try:
        images = (
            data_folder(given.data, given.splits.split(","))
            if given.data is not None
            else image_files(given.path, labels=given.labels, prefix=given.prefix)
        )
        prune = given.prune or given.data is not None
        summary = ingest(Engine.open(given.release), Catalogue(given.collection, create=True), images, prune=prune)
    except (ManifestError, CollectionError, SourceError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, reason in list(summary.unreadable.items())[:_TOLD]:
        print(f"left out {name}: {reason}", file=sys.stderr)
    if len(summary.unreadable) > _TOLD:
        print(f"(and {len(summary.unreadable) - _TOLD} more)", file=sys.stderr)
    print(
        f"collection {given.collection}: {summary.items} items ({summary.embedded} embedded, {summary.unchanged} "
        f"unchanged, {summary.removed} removed, {len(summary.unreadable)} unreadable)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
