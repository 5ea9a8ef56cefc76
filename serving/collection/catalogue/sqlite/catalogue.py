"""The catalogue of a collection as one SQLite file in its folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from core.files.permissions import make_folder
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.sqlite import spare_room
from serving.collection.catalogue.sqlite.bases import SqliteBases, base_of
from serving.collection.catalogue.sqlite.database import WHOLE_WRITE_FAILED, Database, next_sequence, savepoint
from serving.collection.catalogue.sqlite.items import SqliteItems
from serving.collection.catalogue.sqlite.schema import prepare
from serving.collection.catalogue.sqlite.snapshots import SqliteSnapshots
from serving.collection.catalogue.sqlite.spaces import SqliteSpaces
from serving.collection.catalogue.sqlite.vectors import SqliteVectors
from serving.collection.catalogue.sqlite.writes import Write, prepare_write
from serving.collection.catalogue.stats import ReleaseStats, Stats
from serving.collection.catalogue.writes import Delete, Operation, Written
from serving.collection.errors import CatalogueError, CatalogueFull, CollectionError, failed_to_write

FILE_NAME = "catalogue.sqlite"


class SqliteCatalogue(Catalogue):
    """One collection's SQLite file; each thread has a connection of its own to it."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        path = folder / FILE_NAME
        _check_present(path, create=create)
        self.folder = folder
        _make(folder)
        self.database = Database(path, create=create)
        prepare(self.database, create=create)
        self.items = SqliteItems(self.database)
        self.vectors = SqliteVectors(self.database)
        self.bases = SqliteBases(self.database)
        self.spaces = SqliteSpaces(self.database)
        self.snapshots = SqliteSnapshots(self.database)
        if create:
            spare_room.set_aside(folder)

    def write_many(self, operations: Sequence[Operation]) -> list[Written | CollectionError]:
        prepared = [_prepared(operation) for operation in operations]
        if all(isinstance(write, CollectionError) for write in prepared):
            return [write for write in prepared if isinstance(write, CollectionError)]
        try:
            return self._in_one_transaction(prepared)
        except CatalogueFull as error:
            deletions = [isinstance(operation, Delete) for operation in operations]
            if not any(deletions):
                raise
            return self._delete_on_a_full_disk(
                [write if deletion else error for write, deletion in zip(prepared, deletions, strict=True)]
            )

    def _in_one_transaction(self, prepared: Sequence[Write | CollectionError]) -> list[Written | CollectionError]:
        with self.database.writing() as db:
            return [write if isinstance(write, CollectionError) else _carry_out(db, write) for write in prepared]

    def _delete_on_a_full_disk(self, prepared: Sequence[Write | CollectionError]) -> list[Written | CollectionError]:
        """Without the upserts it may fit, or else into the room that was set aside; that is then taken again."""
        try:
            written = self._in_one_transaction(prepared)
        except CatalogueFull:
            if not spare_room.give_up(self.folder):
                raise
            written = self._in_one_transaction(prepared)
        self.database.shorten_log()
        spare_room.set_aside(self.folder, share=1)
        return written

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self.database.reading():
            yield

    def stats(self) -> Stats:
        path = self.database.path
        log = path.with_name(f"{path.name}-wal")
        with self.database.reading() as db:
            releases: list[Any] = db.execute("SELECT release, seq FROM changes ORDER BY release").fetchall()
            vectors = dict(db.execute("SELECT release, count(*) FROM vectors GROUP BY release"))
            return Stats(
                items=self.items.count(),
                seq=self.last_write(),
                labels=dict(db.execute("SELECT label, count(*) FROM items GROUP BY label")),
                sources_kept=int(db.execute("SELECT count(*) FROM sources").get),
                deletions_on_record=int(db.execute("SELECT count(*) FROM deletions").get),
                bytes_on_disk=path.stat().st_size + (log.stat().st_size if log.exists() else 0),
                releases=tuple(
                    ReleaseStats(release, vectors.get(release, 0), seq, base_of(db, release))
                    for release, seq in releases
                ),
            )

    def last_write(self) -> int:
        with self.database.reading() as db:
            return int(db.execute("SELECT last FROM sequence").get)

    def close(self) -> None:
        self.database.close()


def _check_present(path: Path, *, create: bool) -> None:
    """Raise `CatalogueError` for a folder without a catalogue, unless it may be made and nothing is left of another.

    What is left is looked for first: whoever makes a catalogue just now begins with the file.
    """
    left = _left_of_another(path)
    size = path.stat().st_size if path.is_file() else None
    if size is None and not create:
        raise CatalogueError(f"{path.parent} is no collection: it has no {FILE_NAME}")
    if not size and left is not None:
        state = "is missing" if size is None else "is empty"
        raise CatalogueError(
            f"{path} {state}, though {left.name} of a collection is beside it: put the catalogue back from a backup "
            f"or a snapshot, or choose an empty folder"
        )


def _make(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise failed_to_write(error, f"{folder} can't be made") from error


def _left_of_another(path: Path) -> Path | None:
    """A file that only a collection with something in it has."""
    patterns = (f"{path.name}-wal", "*.faiss", "snapshots/*.sqlite")
    return next((file for pattern in patterns for file in path.parent.glob(pattern)), None)


def _prepared(operation: Operation) -> Write | CollectionError:
    try:
        return prepare_write(operation)
    except CollectionError as error:
        return error


def _carry_out(db: apsw.Connection, write: Write) -> Written | CollectionError:
    try:
        with savepoint(db):
            return write(db, next_sequence(db))
    except CollectionError as error:
        return error
    except WHOLE_WRITE_FAILED:
        raise
    except apsw.Error as error:
        return CatalogueError(f"this write was refused, nothing of it was stored: {error}")
