"""The pictures that a data folder was made of, by row: image files, or the items of a collection."""

from hashlib import sha256
from pathlib import Path

from core.images.folders import UnreachableFile, UnreadableFile
from core.images.seen import contents
from serving.collection.pictures.frozen import CollectionSource
from training.data.dataset import Dataset


class Changed(Exception):
    """The item of a collection was deleted or replaced since the collection was frozen."""


class Pictures:
    """The pictures of `data`; raises `CollectionError` if its collection can't be opened."""

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._collection = CollectionSource(Path(data.facts["source"])) if data.facts.get("collection") else None
        self._frozen = data.contents() if self._collection is not None else None

    def read(self, row: int) -> bytes:
        """The bytes of a row's image file; raises what its source raises, and `Changed` for an item that was."""
        name = self._data.ids[row]
        if self._collection is None:
            return self._data.read_item(name)
        if self._frozen is None:  # a folder of an older version, which does not say what it was made of
            return self._collection.read(name)
        try:
            content = self._collection.read(name)
        except UnreachableFile:
            raise
        except UnreadableFile as error:
            raise Changed(str(error)) from error
        if contents([sha256(content).digest()])[0] != self._frozen[row]:
            raise Changed(f"{name} was replaced")
        return content
