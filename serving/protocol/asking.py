"""From what a request says to what is asked: `serving.protocol.body.Body` and image files become a `Request`.

Raises `RequestError` that names the field, its value and what is accepted.
Left out: HTTP (`serving.protocol.wire`), and whether the operation can be carried out (`serving.engine`).
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.filters import Filter
from serving.collection.errors import CollectionError
from serving.protocol.body import Body, ExampleBody
from serving.protocol.encodings import ENCODINGS, Encoding
from serving.protocol.messages import INCLUDES, OPS, Example, Include, Mix, NewItem, Op, Request, RequestError

Files = Mapping[str, bytes]  # image files by the name of their multipart field; "body" is the body itself


def request_of(body: Body, files: Files, *, path: str = "", encoding: str | None = None) -> Request:
    """The request; `path` names the operation and `encoding` the encoding where `body` does not."""
    op = _op(body.op or path.strip("/") or "embed")
    items, used = _items(body, files) if op == "upsert" else ((), set[str]())
    mix, used_by_mix = _mix(body, files)
    free = [file for name, file in files.items() if name not in used | used_by_mix]
    texts = [*([body.image] if body.image is not None else []), *body.images]
    if op == "upsert" and (free or texts) and body.items:
        raise RequestError("an image of an upsert that no item names: an item's image is the name of its file")
    single = op == "upsert" and not body.items
    return Request(
        op=op,
        images=() if single else (*free, *(_from_base64(f"image {at}", text) for at, text in enumerate(texts))),
        ids=() if single else (*([body.id] if body.id is not None else []), *body.ids),
        vectors=tuple(map(_vector, [*([body.vector] if body.vector is not None else []), *body.vectors])),
        mix=mix,
        k=body.k if body.k is not None else 10,
        offset=body.offset or 0,
        min_score=body.min_score,
        exact=bool(body.exact),
        group_by=body.group_by,
        where=_filter(body.filter),
        include=frozenset(map(_include, body.include)),
        items=items,
        limit=body.limit if body.limit is not None else 100,
        cursor=body.cursor,
        name=body.name,
        replace=bool(body.replace),
        encoding=_encoding(body.encoding_format or encoding or "float", op),
    )


def _items(body: Body, files: Files) -> tuple[tuple[NewItem, ...], set[str]]:
    """The items of an upsert, and which of the files they use."""
    if not body.items:
        return (_single(body, files),), set(files)
    if body.id is not None or body.label is not None or body.metadata is not None:
        raise RequestError("id, label and metadata beside items: give each item its own")
    used = {item.image for item in body.items if item.image in files}
    made = (
        NewItem(item.id, _image(f"the image of item {item.id!r}", item.image, files), item.label, item.metadata)
        for item in body.items
    )
    return tuple(made), used


def _single(body: Body, files: Files) -> NewItem:
    """The one item of an upsert whose id, label and metadata stand beside its image."""
    if body.id is None:
        raise RequestError("upsert needs an id for its image, or items that each have an id and an image")
    images = [*files.values(), *(_from_base64("image", text) for text in [body.image] if text is not None)]
    if len(images) != 1 or body.images:
        count = len(images) + len(body.images)
        raise RequestError(f"upsert with an id takes one image, not {count}; for several give items")
    return NewItem(body.id, images[0], body.label, body.metadata or {})


def _mix(body: Body, files: Files) -> tuple[Mix | None, set[str]]:
    if not body.positives:
        if body.negatives:
            raise RequestError("negatives without positives: a search needs something to look for")
        return None, set()
    named = {one.image for one in [*body.positives, *body.negatives] if not isinstance(one, str) and one.image in files}
    positives = tuple(_example(f"positive {at}", one, files) for at, one in enumerate(body.positives))
    negatives = tuple(_example(f"negative {at}", one, files) for at, one in enumerate(body.negatives))
    return Mix(positives, negatives), {name for name in named if name is not None}


def _example(what: str, one: str | ExampleBody, files: Files) -> Example:
    if isinstance(one, str):
        return one
    given = [value for value in (one.id, one.image, one.vector) if value is not None]
    if len(given) != 1:
        raise RequestError(f"{what} has {len(given)} of id, image and vector; it must have one")
    if one.vector is not None:
        return _vector(one.vector)
    return one.id if one.id is not None else _image(what, one.image or "", files)


def _image(what: str, text: str, files: Files) -> bytes:
    """A file sent along, by its field's name, or base64."""
    return files[text] if text in files else _from_base64(what, text)


def _from_base64(what: str, text: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{what} is a data URI without ';base64,'")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{what} is no valid base64: {error}") from error


def _vector(numbers: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(numbers, np.float32)


def _filter(written: Any) -> Filter | None:
    if written is None:
        return None
    try:
        return parse_filter(written)
    except CollectionError as error:
        raise RequestError(str(error)) from error


def _include(name: str) -> Include:
    if name not in INCLUDES:
        raise RequestError(f"include has {name!r}; accepted: {', '.join(INCLUDES)}")
    return name


def _op(name: str) -> Op:
    if name not in OPS:
        raise RequestError(f"op is {name!r}; it must be one of {', '.join(OPS)}")
    return name


def _encoding(name: str, op: Op) -> Encoding:
    if name not in ENCODINGS:
        raise RequestError(f"encoding_format is {name!r}; it must be one of {', '.join(ENCODINGS)}")
    if op != "embed" and name != "float":
        raise RequestError(f"encoding_format is {name!r}, but {op} replies without embeddings; only embed takes it")
    return name
