"""How many bytes a reply will have, told from what is recorded of its items before it is built.

TorchServe decodes a reply in time that grows with the square of its size, and a worker dies of one above 64 MiB. What
is told here is close, not exact: a number of a vector is taken as twelve characters, a thumbnail as eight kilobytes.
"""

from collections.abc import Iterable, Set

import msgspec

from serving.collection.catalogue.items import Stored
from serving.protocol.batches import NUMBER_BYTES
from serving.protocol.messages import RequestError
from serving.protocol.operations import Include

MAX_REPLY_BYTES = 16 << 20

_THUMBNAIL = 8 << 10
_ITEM = 320  # the names and the values of fixed length of an item's line
_NEIGHBOUR = 64  # of a neighbour's, or a duplicate's


def check_items(items: Iterable[Stored], include: Set[Include], *, dim: int) -> None:
    """Refuse, with 413, a reply with all that is stored of these items and what is included besides.

    `dim` is D of their vectors, or 0 where there are none.
    """
    check(_ITEM + _text(item) + _json(item) + _heavy(item, include, dim) for item in items)


def check_neighbours(items: Iterable[Stored], include: Set[Include], *, dim: int) -> None:
    """Refuse, with 413, a reply of these neighbours with what is included; an item counts as often as it is found."""
    known: dict[int, int] = {}
    sizes = []
    for item in items:
        if (size := known.get(item.row)) is None:
            size = _NEIGHBOUR + _text(item) + _heavy(item, include, dim)
            known[item.row] = size = size + (_json(item) if "metadata" in include else 0)
        sizes.append(size)
    check(sizes)


def check_ids(items: Iterable[Stored]) -> None:
    """Refuse, with 413, a reply that has no more than the id and a few numbers of each of these items."""
    check(_NEIGHBOUR + _text(item) for item in items)


def check(sizes: Iterable[int]) -> None:
    """Refuse a reply whose lines have more bytes than a reply may have."""
    if (size := sum(sizes)) > MAX_REPLY_BYTES:
        raise RequestError(
            f"the reply would have some {size / (1 << 20):.0f} MiB; at most {MAX_REPLY_BYTES >> 20}: "
            "ask for fewer items, or include less",
            413,
        )


def _text(item: Stored) -> int:
    return len(item.id) + len(item.label or "")


def _json(item: Stored) -> int:
    return len(msgspec.json.encode(item.metadata)) if item.metadata else 2


def _heavy(item: Stored, include: Set[Include], dim: int) -> int:
    """The vector and the pictures, which are sent in base64."""
    pictures = (item.source.size or 0) if "image" in include else 0
    pictures += _THUMBNAIL if "thumbnail" in include else 0
    return (dim * NUMBER_BYTES if "vector" in include else 0) + pictures * 4 // 3
