"""Opening the index of a collection, as `IndexChoice` names it. pymilvus is imported only where Milvus is chosen."""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from serving.collection.catalogue.interface import Catalogue
from serving.collection.errors import CatalogueReadOnly, IndexUnusable
from serving.collection.index.choice import FAISS, IndexChoice
from serving.collection.index.faiss.compaction import compact, ensure_base, wait_for_another
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.interface import Index

if TYPE_CHECKING:
    from serving.collection.index.milvus.index import MilvusIndex

_LOG = logging.getLogger(__name__)


def open_index(catalogue: Catalogue, release: str, *, index: str = FAISS) -> Index:
    """The vectors of `release`, ready to search by `index` (`serving.collection.index.choice`).

    A FAISS base or a Milvus collection that is missing or damaged is built again. Raises `CompactionError`,
    `IndexUnusable` or `CatalogueReadOnly` where that is not possible; a read-only collection needs no base.
    """
    if (choice := IndexChoice.parse(index)).uri:
        return open_milvus(catalogue, release, choice)
    try:
        ensure_base(catalogue, release)
    except CatalogueReadOnly as error:
        _LOG.warning("every vector is held in memory, as no index file can be made: %s", error)
    try:
        return FaissIndex(catalogue, release)
    except IndexUnusable as error:
        _LOG.warning("%s; doing that now", error)
    if not compact(catalogue, release):
        wait_for_another(catalogue.folder)  # most likely another worker that found the same
    return FaissIndex(catalogue, release)


def open_milvus(catalogue: Catalogue, release: str, choice: IndexChoice) -> "MilvusIndex":
    """The vectors of `release` in Milvus, ready to search. Raises `IndexUnusable`, also where pymilvus is missing."""
    with _pymilvus_wanted():
        from serving.collection.index.milvus.index import MilvusIndex
    return MilvusIndex(catalogue, release, choice)


def drop_in_milvus(catalogue: Catalogue, release: str, choice: IndexChoice) -> None:
    """Remove all that Milvus has of `release`, if anything. Raises `IndexUnusable`, also where pymilvus is missing."""
    with _pymilvus_wanted():
        from serving.collection.index.milvus.entities import Entities
        from serving.collection.index.milvus.tail import name_in_milvus
    with closing(Entities(choice, name_in_milvus(catalogue.folder, release))) as entities:
        entities.drop()


@contextmanager
def _pymilvus_wanted() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "pymilvus":
            raise
        raise IndexUnusable("the index is to be Milvus, and pymilvus is missing: pip install pymilvus") from error
