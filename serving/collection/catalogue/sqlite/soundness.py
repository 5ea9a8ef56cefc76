"""Whether a SQLite file is a snapshot of ours, before anything of it is attached to a collection.

Somebody may have made it to do harm, or another program may have written it. Only the tables and indexes of this
schema are accepted: a view, a trigger or a computed column would run when it is read, for as long as it likes. Every
value is held to what a write would have accepted, so that no item of it breaks a list or stops later writes.
"""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from serving.collection.catalogue.items import Item, Source, encode_item
from serving.collection.catalogue.metadata import MAX_BYTES
from serving.collection.catalogue.sqlite.schema import SCHEMA, TABLES
from serving.collection.catalogue.vectors import first_not_unit
from serving.collection.errors import CatalogueError, ItemError

_MOST = 2**53  # of a number that counts: no collection gets there, and there is room above it
_LAST_MOMENT = 253_402_300_799_999  # the end of the year 9999, in milliseconds
_MOST_DIM = 65_536
_AT_ONCE = 1_024
_COMMENT = re.compile(r"--[^\n]*")
_WRONG = {  # what must not exist, and what it is called
    "sequence number": f"SELECT 1 FROM sequence WHERE last NOT BETWEEN 0 AND {_MOST}",
    "next row": f"SELECT 1 FROM sqlite_sequence WHERE typeof(seq) != 'integer' OR seq NOT BETWEEN 0 AND {_MOST}",
    "row, time or size of an item": (
        f"SELECT 1 FROM items WHERE row NOT BETWEEN 1 AND {_MOST} OR bytes < 0 OR seq NOT BETWEEN 0 AND "
        f"(SELECT last FROM sequence) OR created NOT BETWEEN 0 AND {_LAST_MOMENT} "
        f"OR updated NOT BETWEEN 0 AND {_LAST_MOMENT}"
    ),
    "metadata of an item": f"SELECT 1 FROM items WHERE octet_length(metadata) > {MAX_BYTES}",
    "size of a kept picture": "SELECT 1 FROM sources JOIN items ON row = item WHERE bytes != length(content)",
    "release": "SELECT 1 FROM (SELECT release FROM changes UNION SELECT release FROM spaces) "
    "WHERE length(release) NOT BETWEEN 1 AND 512",
    "dimension of a release": f"SELECT 1 FROM changes WHERE dim NOT BETWEEN 1 AND {_MOST_DIM}",
    "vector": (
        "SELECT 1 FROM vectors LEFT JOIN changes USING(release) WHERE length(vector) IS NOT 4 * dim "
        "OR length(vectors.sha256) != 32 OR vectors.seq NOT BETWEEN 0 AND (SELECT last FROM sequence)"
    ),
}


def check_snapshot(path: Path, *, of: str) -> None:
    """Raise `CatalogueError` unless `path` is a whole snapshot of this schema; `of` is a catalogue's file name."""
    if not path.is_file():
        raise CatalogueError(f"{path} does not exist")
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as db:
            db.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            version = db.pragma("user_version")
            if version == SCHEMA:
                _check_schema(db, path)
            if (problem := db.pragma("integrity_check")) != "ok":
                raise CatalogueError(f"{path} is damaged: {str(problem)[:200]}")
            if version == SCHEMA:
                _check_numbers(db, path)
                _check_items(db, path)
                _check_vectors(db, path)
    except apsw.Error as error:
        raise CatalogueError(f"{path} is no usable snapshot: {error}") from error
    if version != SCHEMA:
        raise CatalogueError(
            f"{path} has schema {version}, not {SCHEMA}: copy it to a new folder as {of}, where an older schema is "
            "brought up to date when it is opened"
        )


def _check_schema(db: apsw.Connection, path: Path) -> None:
    with closing(apsw.Connection(":memory:")) as fresh:
        fresh.execute(TABLES)
        expected = _schema(fresh)
    found = _schema(db)
    odd = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if odd:
        raise CatalogueError(f"{path} is no snapshot of a collection: {odd[0][:80]!r} is not as in schema {SCHEMA}")


def _schema(db: apsw.Connection) -> dict[str, tuple[str, str, str]]:
    """What there is by name, with the statement that made it, without comments and line breaks."""
    query = "SELECT name, type, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_stat_'"
    return {
        str(name): (str(kind), str(table), " ".join(_COMMENT.sub("", str(sql)).split()))
        for name, kind, table, sql in db.execute(query)
    }


def _check_numbers(db: apsw.Connection, path: Path) -> None:
    if db.execute("SELECT count(*) FROM sequence").get != 1:
        raise CatalogueError(f"{path} is no usable snapshot: it has no sequence number")
    for what, query in _WRONG.items():
        if db.execute(f"{query} LIMIT 1").get is not None:
            raise CatalogueError(f"{path} is no usable snapshot: it has an impossible {what}")


def _check_items(db: apsw.Connection, path: Path) -> None:
    query = (
        "SELECT id, label, metadata, sha256, path, media_type, EXISTS (SELECT 1 FROM sources WHERE item = row) "
        "FROM items"
    )
    for name, label, metadata, sha256, file, media_type, kept in db.execute(query):
        source = Source(sha256, None, content=b"" if kept else None, path=file, media_type=media_type)
        try:
            encode_item(Item(name, source, label, _decoded(metadata)))
        except (ItemError, ValueError, RecursionError) as error:
            raise CatalogueError(f"{path} is no usable snapshot: item {name!r:.80}: {error}") from error


def _decoded(metadata: str) -> Any:
    try:
        return json.loads(metadata)
    except json.JSONDecodeError as error:
        raise ItemError(f"its metadata is no JSON ({error})") from error


def _check_vectors(db: apsw.Connection, path: Path) -> None:
    for (release,) in db.execute("SELECT release FROM changes").fetchall():
        lines = db.execute("SELECT vector FROM vectors WHERE release = ?", (release,))
        while some := [line[0] for _, line in zip(range(_AT_ONCE), lines, strict=False)]:
            vectors = np.frombuffer(b"".join(some), "<f4").reshape(len(some), -1)
            if (wrong := first_not_unit(vectors)) is not None:
                raise CatalogueError(f"{path} is no usable snapshot: a vector has norm {wrong[1]}; it must be 1")
