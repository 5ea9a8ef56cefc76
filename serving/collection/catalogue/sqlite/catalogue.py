"""The catalogue: SQLite with items, sources, metadata and vectors. It is the truth; FAISS files are a cache of it.

Every write has a sequence number of its own, taken inside its transaction. `write_many` carries the operations of
several requests in one transaction, each succeeding or failing alone; what it returned is on disk.
What is about embedding spaces is in `serving.collection.catalogue.sqlite.catalogue_spaces`.
Left out: searching (`serving.collection.index.faiss.neighbours`), and making the vectors.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

from core.images.seen import Contents
from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Item, Stored
from serving.collection.catalogue.sqlite import bases, records, vectors
from serving.collection.catalogue.sqlite.bases import Base, Position
from serving.collection.catalogue.sqlite.catalogue_spaces import SpacesOfCatalogue
from serving.collection.catalogue.sqlite.database import WHOLE_WRITE_FAILED, Database, savepoint
from serving.collection.catalogue.sqlite.records import Page, Stats
from serving.collection.catalogue.sqlite.schema import prepare
from serving.collection.catalogue.sqlite.vectors import Census, Changes, Rows, Vectors
from serving.collection.catalogue.sqlite.writes import (
    Delete,
    Deleted,
    Operation,
    Upsert,
    Upserted,
    Write,
    Written,
    prepare_write,
)
from serving.collection.errors import CatalogueError, CollectionError

FILE_NAME = "catalogue.sqlite"


class Catalogue(SpacesOfCatalogue):
    """One collection's SQLite file. Safe to share among threads: each has its own connection."""

    def __init__(self, folder: Path | str, *, create: bool = False) -> None:
        self.folder = Path(folder)
        path = self.folder / FILE_NAME
        if not create and not path.is_file():
            raise CatalogueError(f"{self.folder} is no collection: it has no {FILE_NAME}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._database = Database(path, create=create)
        prepare(self._database, create=create)

    # Writing

    def upsert(self, items: Sequence[Item], embeddings: NDArray[np.float32], release: str) -> Upserted:
        """Store items with their embeddings (N, D) by `release`, all or nothing; the same id again replaces."""
        written = self._write(Upsert(items, embeddings, release))
        assert isinstance(written, Upserted)
        return written

    def delete(self, ids: Sequence[str] = (), *, where: Filter | None = None) -> Deleted:
        """Delete the items with these ids, or those that the filter means, with their vectors by every release."""
        written = self._write(Delete(ids, where))
        assert isinstance(written, Deleted)
        return written

    def write_many(self, operations: Sequence[Operation]) -> list[Written | CollectionError]:
        """Carry out each operation alone, all in one transaction; in its place, why one was refused.

        Raises `CatalogueError` if nothing of any of them was stored.
        """
        prepared = [_prepared(operation) for operation in operations]
        if all(isinstance(write, CollectionError) for write in prepared):
            return [write for write in prepared if isinstance(write, CollectionError)]
        with self._database.writing() as db:
            return [write if isinstance(write, CollectionError) else _carry_out(db, write) for write in prepared]

    def set_base(self, base: Base) -> None:
        """Name a new FAISS file; the file must already be whole and synced."""
        with self._database.writing() as db:
            bases.name_base(db, base)

    def drop_base(self, release: str) -> None:
        """Forget the FAISS file of a release that has no vectors left."""
        with self._database.writing() as db:
            bases.drop_base(db, release)

    # Reading

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever this thread reads inside is of one moment."""
        with self._database.reading():
            yield

    def get(self, name: str, *, content: bool = False) -> Stored | None:
        """The item of this id, on request with its source's bytes; None if there is none."""
        with self._database.reading() as db:
            return records.get(db, name, content=content)

    def get_many(self, names: Sequence[str]) -> dict[str, Stored]:
        """Those of `names` that there are, by id, without their sources' bytes."""
        with self._database.reading() as db:
            return records.get_many(db, names)

    def items_at(self, rows: Iterable[int]) -> dict[int, Stored]:
        """The items at these rows, by row."""
        with self._database.reading() as db:
            return records.items_at(db, rows)

    def list_items(self, where: Filter = EVERYTHING, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Items in the order of their first upsert; a page's cursor leads to the next one.

        An item that stays is listed exactly once, whatever is written meanwhile.
        """
        with self._database.reading() as db:
            return records.page(db, where, limit=limit, cursor=cursor)

    def rows_matching(self, where: Filter) -> Rows:
        """The rows that a filter means, ascending."""
        with self._database.reading() as db:
            return records.rows_matching(db, where)

    def rows_since(self, seq: int) -> Rows:
        """The rows of items that were stored or changed after write `seq`, ascending."""
        with self._database.reading() as db:
            return records.rows_since(db, seq)

    def contents(self) -> tuple[Rows, Contents]:
        """Every row, ascending, and which picture each shows, uint64 (N,) (`core.images.seen`)."""
        with self._database.reading() as db:
            return records.contents(db)

    def count(self, where: Filter = EVERYTHING) -> int:
        """How many items a filter means."""
        with self._database.reading() as db:
            return records.count(db, where)

    def stats(self) -> Stats:
        """What the collection holds."""
        with self._database.reading() as db:
            return records.stats(db, self.folder / FILE_NAME)

    def vectors_of(self, ids: Sequence[str], release: str) -> dict[str, Vectors]:
        """The stored embedding (D,) of each of `ids` that has one by `release`."""
        with self._database.reading() as db:
            return vectors.vectors_of(db, ids, release)

    def digests_of(self, ids: Sequence[str], release: str) -> dict[str, bytes]:
        """Of each of `ids` that has an embedding by `release`, the SHA-256 of the bytes that it was computed from."""
        with self._database.reading() as db:
            return vectors.digests_of(db, ids, release)

    def vectors_at(self, rows: Rows, release: str, *, until: int | None = None) -> tuple[Rows, Vectors]:
        """Those of `rows` that have a vector by `release`, ascending, with their vectors.

        `until` leaves out what is written after that number.
        """
        with self._database.reading() as db:
            return vectors.vectors_at(db, rows, release, until=until)

    def census(self, release: str) -> Census:
        """Which rows have a vector by `release`."""
        with self._database.reading() as db:
            return vectors.census(db, release)

    def sequence(self, release: str) -> int:
        """The number of the last write that changed vectors of `release`; 0 if there was none."""
        return self.position(release).seq

    def position(self, release: str) -> Position:
        """What a worker must have to be up to date: the last write's number, and the name of the base."""
        with self._database.reading() as db:
            return bases.position(db, release)

    def changes_since(self, release: str, since: int) -> Changes:
        """What changed of the vectors of `release` after write `since`; 0 for all there is.

        Raises `ChangesForgotten` if deletions since then are no longer on record.
        """
        with self._database.reading() as db:
            return vectors.changes_since(db, release, since)

    def base(self, release: str) -> Base | None:
        """The FAISS file of this release, if it has one."""
        with self._database.reading() as db:
            return bases.base_of(db, release)

    def base_files(self) -> set[str]:
        """The names of all files that are some release's base."""
        with self._database.reading() as db:
            return bases.base_files(db)

    @property
    def connection(self) -> apsw.Connection:
        """This thread's connection, for work on the whole file."""
        return self._database.connection

    def close(self) -> None:
        """Close this thread's connection."""
        self._database.close()

    def _write(self, operation: Operation) -> Written:
        (written,) = self.write_many([operation])
        if isinstance(written, CollectionError):
            raise written
        return written


def _prepared(operation: Operation) -> Write | CollectionError:
    try:
        return prepare_write(operation)
    except CollectionError as error:
        return error


def _carry_out(db: apsw.Connection, write: Write) -> Written | CollectionError:
    try:
        with savepoint(db):
            seq = int(db.execute("UPDATE sequence SET last = last + 1 RETURNING last").get)
            return write(db, seq)
    except CollectionError as error:
        return error
    except WHOLE_WRITE_FAILED:
        raise
    except apsw.Error as error:
        return CatalogueError(f"this write was refused, nothing of it was stored: {error}")
