"""Snapshots: a collection in one SQLite file, as of one moment, made and restored while others read and write.

A snapshot has items, kept pictures, metadata and vectors; FAISS files are built again. Restoring into a collection is
one transaction that replaces all of its items: whoever searches sees the old ones or the new ones, and after it every
worker begins anew, as deletions before it are declared forgotten. The log grows by the snapshot's size meanwhile.
The collection keeps its spaces, and those of the snapshot; one whose vectors are not all in the snapshot fills again.
Pictures that are not kept in the catalogue but stay in their files are not in a snapshot; their paths are.
"""

from pathlib import Path

import apsw

from core.files.durable import publish_file
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, Catalogue
from serving.collection.catalogue.sqlite.database import in_transaction
from serving.collection.catalogue.sqlite.schema import SCHEMA
from serving.collection.catalogue.sqlite.spaces import COMPUTE_ANEW
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
UPDATE sqlite_sequence SET seq = max(seq, (SELECT max(seq) FROM snapshot.sqlite_sequence WHERE name = 'items'))
    WHERE name = 'items';
INSERT OR IGNORE INTO spaces(release, complete) SELECT release, 0 FROM snapshot.spaces;
{compute_anew}
"""


def save_snapshot(catalogue: Catalogue, path: Path) -> int:
    """Write a snapshot to `path`, whole or not at all; returns how many items it has. Raises `CatalogueError`."""
    db = catalogue.connection
    publish_file(path, lambda partial: _save(db, partial))
    return len_of(path)


def restore_snapshot(path: Path, folder: Path) -> int:
    """Replace everything in the collection at `folder`, which may be new or served; returns how many items it has.

    Raises `CatalogueError` for a snapshot that is damaged or of another schema, and leaves the collection as it was.
    """
    check_snapshot(path)
    db = Catalogue(folder, create=True).connection
    try:
        db.execute("ATTACH ? AS snapshot", (str(path.resolve()),))
        try:
            _replace_all(db)
        finally:
            db.execute("DETACH snapshot")
        return int(db.execute("SELECT count(*) FROM items").get)
    except apsw.Error as error:
        raise CatalogueError(f"{folder} stays as it was, {path} could not be restored: {error}") from error


def check_snapshot(path: Path) -> None:
    """Raise `CatalogueError` unless `path` is a whole snapshot of this schema."""
    if not path.is_file():
        raise CatalogueError(f"{path} does not exist")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        version, problem = db.pragma("user_version"), db.pragma("integrity_check")
        db.close()
    except apsw.Error as error:
        raise CatalogueError(f"{path} is no usable snapshot: {error}") from error
    if problem != "ok":
        raise CatalogueError(f"{path} is damaged: {str(problem)[:200]}")
    if version != SCHEMA:
        raise CatalogueError(
            f"{path} has schema {version}, not {SCHEMA}: copy it to a new folder as {FILE_NAME}, where an older schema "
            "is brought up to date when it is opened"
        )


def len_of(path: Path) -> int:
    """How many items a snapshot has."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(db.execute("SELECT count(*) FROM items").get)
    finally:
        db.close()


def _save(db: apsw.Connection, partial: Path) -> None:
    partial.unlink(missing_ok=True)  # of a run that was killed; VACUUM wants no file there
    try:
        db.execute("VACUUM INTO ?", (str(partial),))
    except apsw.Error as error:
        raise CatalogueError(f"{partial} could not be written, is the disk full? ({error})") from error


def _replace_all(db: apsw.Connection) -> None:
    copies = "\n".join(
        f"INSERT INTO {table}({names}) SELECT {names} FROM snapshot.{table};"
        for table in _TABLES
        for names in [_columns(db, table)]
    )
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(_RESTORE.format(copies=copies, compute_anew=COMPUTE_ANEW))
        db.execute("COMMIT")
    except BaseException:
        if in_transaction(db):
            db.execute("ROLLBACK")
        raise


def _columns(db: apsw.Connection, table: str) -> str:
    return ", ".join(line[1] for line in db.execute(f"PRAGMA main.table_info({table})"))
