"""Upserts and deletions of many requests, in one transaction: each request whole or not at all, and none by another's.

Of an upsert, items that can't be stored as they are (a broken image, metadata too large) are told in their place, and
the others are stored. What is answered is on disk.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.images.decode import ImageError
from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.catalogue.writes import Delete, Deleted, Upsert, Upserted, Written
from serving.collection.errors import CollectionError
from serving.inference.embedder import Embedded
from serving.operations.failures import failure_of
from serving.operations.opened import OpenCollection
from serving.operations.pictures import media_type_of
from serving.protocol.messages import Answer, Failure, NewItem, Request, RequestError

Made = Item | Failure


def write_all(
    collection: OpenCollection, requests: Sequence[Request], embedded: Sequence[Sequence[Embedded]], title: str
) -> list[Answer | RequestError]:
    """Carry out upserts and deletions; `embedded` has, for each, what became of its items' images.

    `title` is the release's, for the answers.
    """
    made = [[*map(_made, request.items, images)] for request, images in zip(requests, embedded, strict=True)]
    operations = [_operation(*each, collection.release) for each in zip(requests, made, embedded, strict=True)]
    try:
        written = iter(collection.catalogue.write_many([one for one in operations if one is not None]))
    except CollectionError as error:  # nothing of any
        return [failure_of(error)] * len(requests)
    outcomes = [next(written) if operation is not None else None for operation in operations]
    return [_answer(*each, title) for each in zip(requests, made, outcomes, strict=True)]


def _made(new: NewItem, image: Embedded) -> Made:
    if isinstance(image, ImageError):
        return image
    item = Item(new.id, Source.kept(new.image, media_type_of(new.image)), new.label, new.metadata)
    try:
        encode_item(item)
    except CollectionError as error:
        return failure_of(error)
    return item


def _operation(
    request: Request, made: Sequence[Made], images: Sequence[Embedded], release: str
) -> Upsert | Delete | None:
    """What is to be written; None where nothing of the request can be."""
    if request.op == "delete":
        return Delete(request.ids, request.where)
    good = [(item, image) for item, image in zip(made, images, strict=True) if isinstance(item, Item)]
    if not good:
        return None
    vectors = np.stack([image.embedding for _, image in good if not isinstance(image, ImageError)])
    return Upsert([item for item, _ in good], vectors, release)


def _answer(
    request: Request, made: Sequence[Made], written: Written | CollectionError | None, title: str
) -> Answer | RequestError:
    if isinstance(written, CollectionError):
        return failure_of(written)
    if isinstance(written, Deleted):
        more: dict[str, Any] = {"seq": written.seq, "deleted": written.count, "missing": list(written.missing)}
        return Answer(request.op, title, more=more)
    outcomes = iter(written.outcomes if isinstance(written, Upserted) else ())
    results = [{"id": one.id, "outcome": next(outcomes)} if isinstance(one, Item) else one for one in made]
    return Answer(request.op, title, results, more={"seq": written.seq} if written is not None else {})
