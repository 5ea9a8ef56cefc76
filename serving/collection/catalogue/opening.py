"""Opening the catalogue of a collection: the one place that knows which implementations there are."""

import re
from pathlib import Path

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, SqliteCatalogue
from serving.collection.errors import CatalogueError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def open_catalogue(folder: Path | str, *, create: bool = False) -> Catalogue:
    """The catalogue of the collection in a folder; `create` makes folder and catalogue if they are missing.

    Raises `CatalogueError` for a folder without one, a catalogue that can't be used, and an address.
    """
    if _ADDRESS.match(str(folder)):
        raise CatalogueError(f"collection is {str(folder).split(':')[0]}://...; it must be a folder of this machine")
    return SqliteCatalogue(Path(folder), create=create)


def is_collection(folder: Path) -> bool:
    """Whether the folder has a catalogue."""
    return (folder / FILE_NAME).is_file()
