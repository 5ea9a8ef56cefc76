"""Upserts and deletions of many requests, in one transaction: each request whole or not at all, and alone if it fails.

Of an upsert, items that can't be stored as they are (a broken image, metadata too large) fail in their place, and the
others are stored. What is answered is on disk.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.images.decode import ImageError
from core.images.formats import media_type_of
from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.catalogue.writes import Delete, Deleted, Upsert, Upserted, Written
from serving.collection.errors import CollectionError
from serving.inference.embedder import Embedded
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of, unforeseen
from serving.operations.look_alikes import warnings_of
from serving.operations.opened import OpenCollection
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import DeleteRequest, NewItem, UpsertRequest

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Write:
    """An exchange's write; None where nothing of it can be stored.

    Of an upsert `results` has an entry per item, of which those `stored` are to get their outcome.
    """

    exchange: Exchange[Any]
    operation: Upsert | Delete | None
    results: list[Any] = field(default_factory=list)
    stored: list[dict[str, Any]] = field(default_factory=list)


def write_all(collection: OpenCollection, exchanges: Sequence[Exchange[Any]], title: str) -> None:
    """Carry out upserts and deletions, and answer them; `title` is the release's."""
    writes = [write for one in exchanges if (write := _prepared(one, collection.release)) is not None]
    real = [write for write in writes if write.operation is not None]
    try:
        written = collection.catalogue.write_many([write.operation for write in real if write.operation is not None])
    except CollectionError as error:  # nothing of any was written
        for write in writes:
            write.exchange.answer = failure_of(error)
        return
    for write in writes:
        if write.operation is None:
            write.exchange.answer = Answer(title, write.results)
    for write, outcome in zip(real, written, strict=True):
        write.exchange.answer = _answer(write, outcome, title)
    _warn(collection, [write for write, outcome in zip(real, written, strict=True) if isinstance(outcome, Upserted)])


def _prepared(one: Exchange[Any], release: str) -> _Write | None:
    """None where something unforeseen is wrong with it, which then is its answer; the others are still written."""
    try:
        return _write(one, release)
    except Exception as error:
        _LOG.exception("a write could not be prepared")
        one.answer = unforeseen(error)
        return None


def _write(one: Exchange[Any], release: str) -> _Write:
    request = one.request
    if isinstance(request, DeleteRequest):
        return _Write(one, Delete(request.ids, one.where))
    assert isinstance(request, UpsertRequest)
    write = _Write(one, None)
    items, vectors = [], []
    for new, image in zip(request.items, one.embedded, strict=True):
        item = _item(new, image)
        if isinstance(item, Item) and not isinstance(image, ImageError):
            items.append(item)
            vectors.append(image.embedding)
            write.stored.append({"id": item.id})
            write.results.append(write.stored[-1])
        else:
            write.results.append(item)
    if items:
        write.operation = Upsert(items, np.stack(vectors), release)
    return write


def _item(new: NewItem, image: Embedded) -> Item | ImageError | RequestError:
    if isinstance(image, ImageError):
        return image
    item = Item(new.id, Source.kept(new.image, media_type_of(new.image)), new.label, new.metadata)
    try:
        encode_item(item)
    except CollectionError as error:
        return failure_of(error)
    return item


def _answer(write: _Write, written: Written | CollectionError, title: str) -> Answer | RequestError:
    if isinstance(written, CollectionError):
        return failure_of(written)
    if isinstance(written, Deleted):
        more = {"seq": written.seq, "deleted": written.count, "missing": list(written.missing)}
        return Answer(title, more=more)
    assert isinstance(written, Upserted)
    for result, outcome in zip(write.stored, written.outcomes, strict=True):
        result["outcome"] = outcome
    return Answer(title, write.results, more={"seq": written.seq})


def _warn(collection: OpenCollection, upserts: Sequence[_Write]) -> None:
    """Add to the results of stored items what is odd about their labels."""
    stored = [(write.operation.items, write.stored) for write in upserts if isinstance(write.operation, Upsert)]
    pairs = [pair for items, results in stored for pair in zip(items, results, strict=True)]
    warnings = warnings_of((item.label for item, _ in pairs), collection.catalogue)
    for item, result in pairs:
        if item.label in warnings:
            result["warning"] = warnings[item.label]
