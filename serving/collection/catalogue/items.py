"""Items as they come in and as they are stored, and what an item must be like.

An embedding belongs to an item and a release, so it is no part of the item.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from serving.collection.catalogue.metadata import encode_metadata, path_problem, text_problem
from serving.collection.errors import ItemError

MAX_ID_BYTES = 512
MAX_LIMIT = 10_000  # items of one page
_SHA256_BYTES = 32


@dataclass(frozen=True)
class Source:
    """An item's picture: its bytes, kept in the catalogue, or the path of its file; their SHA-256, and how many."""

    sha256: bytes
    size: int | None
    content: bytes | None = None
    path: str | None = None
    media_type: str | None = None

    @classmethod
    def kept(cls, content: bytes, media_type: str | None = None) -> "Source":
        """A picture whose bytes go into the catalogue."""
        return cls(hashlib.sha256(content).digest(), len(content), content=content, media_type=media_type)

    @classmethod
    def at(cls, path: str, content: bytes, media_type: str | None = None) -> "Source":
        """A picture that stays where it is, as `core.images.places` has it; `content` is what it holds now."""
        return cls(hashlib.sha256(content).digest(), len(content), path=path, media_type=media_type)


@dataclass(frozen=True)
class Item:
    """One image of the collection as it comes in, without its embedding."""

    id: str
    source: Source
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """An item as the catalogue has it, with its source's bytes only if they were asked for.

    `row` is its number in this collection, never used again; `created` and `updated` are milliseconds since 1970.
    """

    row: int
    id: str
    source: Source
    label: str | None
    metadata: dict[str, Any]
    created: int
    updated: int
    seq: int


@dataclass(frozen=True)
class Page:
    """Some items, and where to go on; no cursor means that these were the last."""

    items: tuple[Stored, ...]
    cursor: str | None


def encode_item(item: Item) -> str:
    """The item's metadata as JSON text; raises `ItemError` that names what can't be stored of the item."""
    check_id(item.id)
    check_label(item.id, item.label)
    media_type = item.source.media_type
    if media_type is not None and (problem := text_problem(media_type, MAX_ID_BYTES)):
        raise ItemError(f"the media_type of item {item.id!r} {problem}")
    if item.source.path is not None and (problem := path_problem(item.source.path)):
        raise ItemError(f"the path of item {item.id!r} {problem}")
    if (item.source.content is None) == (item.source.path is None):
        raise ItemError(f"item {item.id!r} needs the bytes of its source or its path, and not both")
    if len(item.source.sha256) != _SHA256_BYTES:
        raise ItemError(f"the sha256 of item {item.id!r} has {len(item.source.sha256)} bytes, not {_SHA256_BYTES}")
    try:
        return encode_metadata(item.metadata)
    except ItemError as error:
        raise ItemError(f"item {item.id!r}: {error}") from error


def check_label(name: str, label: str | None) -> None:
    """Raise `ItemError` unless the item `name` can have this label, or none."""
    if label is not None and (problem := text_problem(label, MAX_ID_BYTES)):
        raise ItemError(f"the label of item {name!r} {problem}")


def check_id(name: Any) -> None:
    """Raise `ItemError` unless `name` can be an id."""
    if problem := text_problem(name, MAX_ID_BYTES):
        raise ItemError(f"an id {problem}")
