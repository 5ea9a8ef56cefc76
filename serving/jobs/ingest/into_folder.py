"""Fill the folder of a collection with images, without a server or beside one, and bring its index up to date.

The exported file does the embedding, so what is stored is what a server computes. Images stay where they are; the
catalogue has their paths. Killed and run again it goes on where it stopped: files that did not change are not embedded
twice. Of a file that can't be read, what was stored before stays; so does metadata that was given elsewhere.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from core.images.decode import ImageError
from core.images.folders import UnreadableFile
from core.images.formats import media_type_of
from core.machine.machine import usable_cores
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.catalogue.vectors import Vectors
from serving.collection.errors import CollectionError, IndexUnusable
from serving.collection.index.faiss.compaction import Policy, compact, wait_for_another
from serving.collection.index.faiss.index import FaissIndex
from serving.engine import Engine
from serving.jobs.ingest.ingestion import Ingestion
from serving.jobs.ingest.pruning import prune
from serving.jobs.ingest.sources import Images, Listed, in_batches

_BATCH = 64
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class _File:
    """A file as it was read: its bytes, or why there are none."""

    listed: Listed
    content: bytes
    unreadable: str | None = None


def ingest(engine: Engine, catalogue: Catalogue, images: Images, *, remove_gone: bool = True) -> Ingestion:
    """Have the collection hold `images`, embedded by the engine's release, and bring its base up to date.

    With `remove_gone`, items whose files were in the same source and have gone from it are removed.
    """
    done = Ingestion()
    catalogue.spaces.open(engine.space)
    with tqdm(total=len(images.listed), desc="embed", unit="image") as bar:
        for batch in _read_ahead(images):
            _store(engine, catalogue, images, batch, done)
            bar.update(len(batch))
    if remove_gone:
        pruned = prune(catalogue, images)
        done.removed, done.unseen = pruned.removed, pruned.unseen
    bring_up_to_date(catalogue, engine.space)
    return done


def bring_up_to_date(catalogue: Catalogue, release: str) -> None:
    """Build the base if there is none, if it is damaged, or if much was written since."""
    while _wants_base(catalogue, release) and not compact(catalogue, release):
        wait_for_another(catalogue.folder)


def _wants_base(catalogue: Catalogue, release: str) -> bool:
    if catalogue.bases.get(release) is None:
        return len(catalogue.vectors.census(release).rows) > 0
    try:
        neighbours = FaissIndex(catalogue, release)
    except IndexUnusable:
        return True
    try:
        return Policy().due(neighbours.sizes)
    finally:
        neighbours.close()


def _read_ahead(images: Images) -> Iterator[list[_File]]:
    """Batches of files; the next ones are read while one is embedded."""
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
    except (UnreadableFile, ValueError) as error:  # ValueError: the name can't be a path
        return _File(listed, b"", f"can't be read: {error}")


def _store(engine: Engine, catalogue: Catalogue, images: Images, files: Sequence[_File], done: Ingestion) -> None:
    """Store, in one transaction, what is new in a batch or has a new label or place."""
    made = _items(catalogue, images, files, done)
    digests = catalogue.vectors.digests_of([item.id for _, item in made], engine.space)
    known = [item.id for _, item in made if digests.get(item.id) == item.source.sha256]
    vectors: dict[str, Vectors] = catalogue.vectors.of(known, engine.space)
    fresh = [(file, item) for file, item in made if item.id not in vectors]
    for (_, item), outputs in zip(fresh, engine.embed_files([file.content for file, _ in fresh]), strict=True):
        if isinstance(outputs, ImageError):
            done.left_out[item.id] = str(outputs)
        else:
            vectors[item.id] = outputs.embedding
            done.stored += 1
    done.unchanged += len(made) - len(fresh)
    good = [item for _, item in made if item.id in vectors]
    if good:
        catalogue.upsert(good, np.stack([vectors[item.id] for item in good]), engine.space)


def _items(catalogue: Catalogue, images: Images, files: Sequence[_File], done: Ingestion) -> list[tuple[_File, Item]]:
    """The files that can be stored, as items that keep the metadata they have; the others are left out."""
    stored = catalogue.items.get_many([file.listed.id for file in files])
    made: list[tuple[_File, Item]] = []
    for file in files:
        listed = file.listed
        source = Source.at(images.place_of(listed), file.content, media_type_of(file.content))
        item = Item(listed.id, source, listed.label, stored[listed.id].metadata if listed.id in stored else {})
        if (problem := file.unreadable or _problem(item)) is not None:
            done.left_out[listed.id] = problem
        else:
            made.append((file, item))
    return made


def _problem(item: Item) -> str | None:
    try:
        encode_item(item)
    except CollectionError as error:
        return str(error)
    return None
