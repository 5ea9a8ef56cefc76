"""Items as a reply shows them, with what is to be included: vectors, thumbnails, pictures.

The path of a source is never shown. Functions for use inside a collection's `turn`.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.collection.catalogue.items import Stored
from serving.operations.exchange import Exchange
from serving.operations.opened import OpenCollection
from serving.operations.pictures import picture_of, thumbnail_of
from serving.operations.sizes import check_items
from serving.protocol.messages import Picture, RequestError
from serving.protocol.operations import GetRequest, Include, ListRequest

MAX_PICTURE_BYTES = 32 << 20  # of all pictures in one reply; TorchServe's own limit is twice that, and base64 adds


def get(collection: OpenCollection, request: GetRequest) -> list[dict[str, Any] | RequestError]:
    """For each id its item, or an error where there is none."""
    found = collection.catalogue.items.get_many(request.ids)
    items = [*found.values()]
    extras = includes(collection, items, request.include, bounded=len(items) > 1)  # one picture can always be had
    if "image" in request.include:
        _check_size(extra["image"] for extra in extras.values())
    lines = zip(items, show(collection, items), strict=True)
    shown = {item.id: _or_failure(line | extras[item.row]) for item, line in lines}
    return [shown.get(name, RequestError(f"no item with id {name!r}", 404)) for name in request.ids]


def list_items(collection: OpenCollection, one: Exchange[ListRequest]) -> dict[str, Any]:
    """A page of items, and the cursor of the next one."""
    request = one.request
    page = collection.catalogue.items.page(one.selection, limit=request.limit, cursor=request.cursor)
    return {"items": show_with(collection, page.items, request.include), "cursor": page.cursor}


def show_with(collection: OpenCollection, items: Sequence[Stored], include: Set[Include]) -> list[dict[str, Any]]:
    """What is stored of each, with what was asked for; a picture that can't be had is null."""
    extras = includes(collection, items, include, bounded=True)
    lines = zip(items, show(collection, items), strict=True)
    return [line | _without_failures(extras[item.row]) for item, line in lines]


def show(collection: OpenCollection, items: Sequence[Stored]) -> list[dict[str, Any]]:
    """What is stored of each; `embedded` says whether this release has an embedding of this very file."""
    digests = collection.catalogue.vectors.digests_of([item.id for item in items], collection.release)
    return [
        {
            "id": item.id,
            "label": item.label,
            "metadata": item.metadata,
            "media_type": item.source.media_type,
            "bytes": item.source.size,
            "sha256": item.source.sha256.hex(),
            "created": item.created,
            "updated": item.updated,
            "seq": item.seq,
            "embedded": digests.get(item.id) == item.source.sha256,
        }
        for item in items
    ]


def includes(
    collection: OpenCollection, items: Sequence[Stored], include: Set[Include], *, bounded: bool = False
) -> dict[int, dict[str, Any]]:
    """By row, the vector (D,) or null, the thumbnail, and the picture, as asked for; a failure where there is none.

    If `bounded`, raises `RequestError` where a reply of these items, with all that is stored of them, is too large.
    """
    vectors = _vectors(collection, items) if "vector" in include else {}
    if bounded:
        check_items(items, include, dim=next((len(vector) for vector in vectors.values()), 0))
    found: dict[int, dict[str, Any]] = {}
    for item in items:
        extra: dict[str, Any] = {}
        if "vector" in include:
            extra["vector"] = vectors.get(item.row)
        if include & {"thumbnail", "image"}:
            picture = _picture(collection, item)
            extra |= {"image": picture} if "image" in include else {}
            extra |= {"thumbnail": _thumbnail(picture)} if "thumbnail" in include else {}
        found[item.row] = extra
    return found


def include_in_neighbours(
    collection: OpenCollection, neighbours: Sequence[tuple[Stored, dict[str, Any]]], include: Set[Include]
) -> None:
    """Add to each neighbour what was asked for; a picture that can't be had is null."""
    if "metadata" in include:
        for item, line in neighbours:
            line["metadata"] = item.metadata
    if include & {"vector", "thumbnail"}:
        extras = includes(collection, list({item.row: item for item, _ in neighbours}.values()), include)
        for item, line in neighbours:
            line.update(_without_failures(extras[item.row]))


def _vectors(collection: OpenCollection, items: Sequence[Stored]) -> Mapping[int, NDArray[np.float32]]:
    wanted = np.array(sorted({item.row for item in items}), np.int64)
    rows, vectors = collection.catalogue.vectors.at(wanted, collection.release)
    return dict(zip(rows.tolist(), vectors, strict=True))


def _picture(collection: OpenCollection, item: Stored) -> Picture | RequestError:
    stored = collection.catalogue.items.get(item.id, content=True)
    assert stored is not None, "the moment is one"
    try:
        return picture_of(stored)
    except RequestError as error:
        return error


def _thumbnail(picture: Picture | RequestError) -> Picture | RequestError:
    if isinstance(picture, RequestError):
        return picture
    try:
        return thumbnail_of(picture)
    except ImageError as error:
        return RequestError(str(error), error.status)


def _check_size(pictures: Iterable[Any]) -> None:
    size = sum(len(picture.content) for picture in pictures if isinstance(picture, Picture))
    if size > MAX_PICTURE_BYTES:
        raise RequestError(f"the pictures have {size} bytes in all; at most {MAX_PICTURE_BYTES} in one reply", 413)


def _or_failure(line: dict[str, Any]) -> dict[str, Any] | RequestError:
    """A picture that was asked for and can't be had is that item's failure."""
    return next((value for value in line.values() if isinstance(value, RequestError)), line)


def _without_failures(extra: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, RequestError) else value for name, value in extra.items()}
