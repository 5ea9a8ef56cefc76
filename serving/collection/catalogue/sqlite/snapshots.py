"""Snapshots: a collection in one SQLite file, made and restored while others read and write.

A snapshot has items, kept pictures, metadata and vectors; FAISS files are built again. Restoring takes one transaction,
in which the log grows by the snapshot's size.
"""

import os
from pathlib import Path

import apsw

from core.files.durable import publish_file
from core.files.permissions import file_mode
from serving.collection.catalogue.interface import SnapshotFiles
from serving.collection.catalogue.sqlite.database import Database, in_our_words
from serving.collection.catalogue.sqlite.pending import COMPUTE_ANEW
from serving.collection.catalogue.sqlite.soundness import check_snapshot
from serving.collection.errors import CatalogueError

_TABLES = ("items", "sources", "vectors", "terms")  # in the order in which they refer to each other
_RESTORE = """
DELETE FROM bases;
DELETE FROM deletions;
DELETE FROM items;
{copies}
INSERT OR IGNORE INTO changes(release, seq, dim, forgotten) SELECT release, 0, dim, 0 FROM snapshot.changes;
UPDATE sequence SET last = 1 + max(last, (SELECT last FROM snapshot.sequence));
UPDATE changes SET seq = (SELECT last FROM sequence), forgotten = (SELECT last FROM sequence),
    dim = coalesce((SELECT dim FROM snapshot.changes AS there WHERE there.release = changes.release), dim);
UPDATE sqlite_sequence
    SET seq = max(seq, coalesce((SELECT max(seq) FROM snapshot.sqlite_sequence WHERE name = 'items'), 0))
    WHERE name = 'items';
INSERT OR IGNORE INTO spaces(release, complete) SELECT release, 0 FROM snapshot.spaces;
{compute_anew}
"""


class SqliteSnapshots(SnapshotFiles):
    """Snapshots of one catalogue's file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, path: Path) -> int:
        db = self._database.connection
        publish_file(path, lambda partial: _save(db, partial))
        return _count_items(path)

    def restore(self, path: Path) -> int:
        check_snapshot(path, of=self._database.path.name)
        db = self._database.connection
        try:
            _attach(db, path.resolve())
            try:
                with self._database.writing():
                    _replace_all(db)
                    return int(db.execute("SELECT count(*) FROM items").get)
            finally:
                db.execute("DETACH snapshot")
        except apsw.Error as error:
            raise CatalogueError(
                f"{self._database.path.parent} stays as it was, {path} could not be restored: {error}"
            ) from error

    def bytes_needed(self) -> int:
        db = self._database.connection
        return int(db.pragma("page_size")) * (int(db.pragma("page_count")) - int(db.pragma("freelist_count")))


def _attach(db: apsw.Connection, path: Path) -> None:
    """For reading alone, whatever the file allows."""
    for option in (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE):
        db.config(option, 0)
    try:
        db.execute("ATTACH ? AS snapshot", (str(path),))
    finally:
        for option in (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE):
            db.config(option, 1)


def _count_items(path: Path) -> int:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(db.execute("SELECT count(*) FROM items").get)
    finally:
        db.close()


def _save(db: apsw.Connection, partial: Path) -> None:
    partial.unlink(missing_ok=True)  # of a run that was killed; VACUUM wants an empty file or none
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, file_mode()))
    try:
        with in_our_words(partial, "could not be written, is the disk full?"):
            db.execute("VACUUM INTO ?", (str(partial),))
    except apsw.Error as error:
        raise CatalogueError(f"{partial} could not be written: {error}") from error


def _replace_all(db: apsw.Connection) -> None:
    copies = "\n".join(
        f"INSERT INTO {table}({names}) SELECT {names} FROM snapshot.{table};"
        for table in _TABLES
        for names in [_columns(db, table)]
    )
    db.execute(_RESTORE.format(copies=copies, compute_anew=COMPUTE_ANEW))


def _columns(db: apsw.Connection, table: str) -> str:
    return ", ".join(line[1] for line in db.execute(f"PRAGMA main.table_info({table})"))
