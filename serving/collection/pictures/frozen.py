"""The pictures of a collection as a source of images: each item by its id, as it was when the list was made.

The list is of one moment (`Frozen.seq`). Pictures are read later, one by one, without a transaction that would have to
stay open all that time. An item that was replaced or deleted meanwhile can't be read, and what was written later is not
on the list.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.images.folders import UnreadableFile
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import MAX_LIMIT, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.pictures.stored import StoredFiles

_FILES = StoredFiles()


@dataclass(frozen=True)
class FrozenItem:
    """One item of a frozen list."""

    id: str
    label: str | None
    sha256: bytes
    size: int


@dataclass(frozen=True)
class Frozen:
    """Every item of a collection, in the order of their first upsert, up to write `seq`."""

    seq: int
    items: tuple[FrozenItem, ...]


def freeze(catalogue: Catalogue) -> Frozen:
    """List all items as of one moment."""
    items: list[FrozenItem] = []
    cursor = None
    with catalogue.reading():
        while True:
            page = catalogue.items.page(limit=MAX_LIMIT, cursor=cursor)
            items += [FrozenItem(one.id, one.label, one.source.sha256, one.source.size or 0) for one in page.items]
            cursor = page.cursor
            if cursor is None:
                return Frozen(catalogue.stats().seq, tuple(items))


def read_source(name: str, source: Source) -> bytes:
    """The bytes of a picture wherever they are kept, just as they were stored; `UnreadableFile` says why not.

    A path is as `core.images.places` has it; it comes from the catalogue, never from a request.
    """
    content = source.content
    if content is None:
        assert source.path is not None, "an item has bytes or a path"
        content = _read_path(name, source.path)
    if hashlib.sha256(content).digest() != source.sha256:
        raise UnreadableFile(f"the file of item {name!r} is no longer the one that was stored: ingest it again")
    return content


class CollectionSource:
    """The pictures of a frozen list, by id; safe to read from several threads."""

    def __init__(self, folder: Path, frozen: Frozen | None = None) -> None:
        """Without a list, items are read as they are now."""
        self.path = folder
        self._catalogue = open_catalogue(folder)
        self._frozen = frozen
        self._digests = {item.id: item.sha256 for item in frozen.items} if frozen is not None else None

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes of every picture on the list, and a stamp that changes with it."""
        assert self._frozen is not None, "only a frozen list has sizes"
        return {item.id: (item.size, int.from_bytes(item.sha256[:8])) for item in self._frozen.items}

    def names(self) -> Iterator[str]:
        """The ids on the list."""
        assert self._frozen is not None, "only a frozen list has names"
        return iter([item.id for item in self._frozen.items])

    def read(self, name: str) -> bytes:
        """The picture of an item; `UnreadableFile` if it is gone, or no longer the one on the list."""
        stored = self._catalogue.items.get(name, content=True)
        if stored is None:
            raise UnreadableFile("the item was deleted")
        if self._digests is not None and self._digests.get(name) != stored.source.sha256:
            raise UnreadableFile("the item was replaced")
        return read_source(name, stored.source)


def _read_path(name: str, path: str) -> bytes:
    try:
        return _FILES.read(path)
    except UnreadableFile as error:
        reason = type(error.__cause__ or error).__name__
        raise UnreadableFile(f"the file of item {name!r} can't be read any more: {reason}") from error
