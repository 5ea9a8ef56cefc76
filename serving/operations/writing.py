"""Upserts, updates and deletions of many requests, in one transaction.

Each request is carried out whole or not at all, and fails alone. Of an upsert or an update, items that can't be stored
as they are (a broken image, metadata too large, an id to update that does not exist) fail in their place, and the
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
from serving.collection.catalogue.writes import (
    Change,
    Delete,
    Deleted,
    Operation,
    Outcome,
    Update,
    UpdateOutcome,
    Upsert,
    Written,
    check_change,
)
from serving.collection.errors import CollectionError, ItemError
from serving.inference.embedder import Embedded
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of, unforeseen
from serving.operations.look_alikes import warnings_of
from serving.operations.opened import OpenCollection
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import DeleteRequest, NewItem, UpdateRequest, UpsertRequest

_LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class _Write:
    """An exchange's write; None where nothing of it can be stored.

    Of an upsert or an update `results` has an entry per item; where it is an id, which is yet to get its outcome,
    `written` has the label that the item is given, if any.
    """

    exchange: Exchange[Any]
    operation: Operation | None
    results: list[Any] = field(default_factory=list)
    written: dict[int, str | None] = field(default_factory=dict)

    def add(self, name: str, label: str | None) -> None:
        """Expect an outcome for the next item."""
        self.written[len(self.results)] = label
        self.results.append(name)


def write_all(collection: OpenCollection, exchanges: Sequence[Exchange[Any]], title: str) -> None:
    """Carry out upserts, updates and deletions, and answer them; `title` is the release's."""
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
    _warn(collection, real)


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
    if isinstance(request, UpdateRequest):
        return _update(one)
    return _upsert(one, release)


def _upsert(one: Exchange[UpsertRequest], release: str) -> _Write:
    write = _Write(one, None)
    items, vectors = [], []
    for new, image in zip(one.request.items, one.embedded, strict=True):
        item = _item(new, image)
        if isinstance(item, Item) and not isinstance(image, ImageError):
            items.append(item)
            vectors.append(image.embedding)
            write.add(item.id, item.label)
        else:
            write.results.append(item)
    if items:
        write.operation = Upsert(items, np.stack(vectors), release)
    return write


def _update(one: Exchange[UpdateRequest]) -> _Write:
    write = _Write(one, None)
    changes = []
    for item in one.request.items:
        change = Change(item.id, item.label, item.metadata, one.request.replace_metadata)
        try:
            check_change(change)
        except CollectionError as error:
            write.results.append(failure_of(error))
        else:
            changes.append(change)
            write.add(change.id, change.label if isinstance(change.label, str) else None)
    if changes:
        write.operation = Update(changes)
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
    for at, outcome in zip(write.written, written.outcomes, strict=True):
        write.results[at] = _result(write.results[at], outcome)
    return Answer(title, write.results, more={"seq": written.seq})


def _warn(collection: OpenCollection, writes: Sequence[_Write]) -> None:
    """Add to the results of stored items what is odd about their labels."""
    placed = [(label, write.results[at]) for write in writes for at, label in write.written.items()]
    stored = [(label, result) for label, result in placed if isinstance(result, dict)]
    warnings = warnings_of((label for label, _ in stored), collection.catalogue)
    for label, result in stored:
        if label in warnings:
            result["warning"] = warnings[label]


def _result(name: str, outcome: Outcome | UpdateOutcome | ItemError) -> dict[str, str] | RequestError:
    if isinstance(outcome, ItemError):
        return failure_of(outcome)
    if outcome == "missing":
        return RequestError(f"no item with id {name!r}", 404)
    return {"id": name, "outcome": outcome}
