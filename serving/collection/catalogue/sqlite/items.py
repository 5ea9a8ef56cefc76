"""The items in SQLite: one, some, a page, how many."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import numpy as np

from core.images import seen
from core.images.seen import Contents
from serving.collection.catalogue.facets import Facet, check_key
from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.interface import Items
from serving.collection.catalogue.items import MAX_LIMIT, Page, Source, Stored
from serving.collection.catalogue.sqlite.database import Database
from serving.collection.catalogue.sqlite.facets import facet
from serving.collection.catalogue.sqlite.filter_sql import compile_filter
from serving.collection.catalogue.vectors import Rows
from serving.collection.errors import FilterError

_COLUMNS = "row, id, label, metadata, created, updated, seq, sha256, bytes, path, media_type"
_CONTENT = "(SELECT content FROM sources WHERE item = row)"


class SqliteItems(Items):
    """The tables `items`, `sources` and `terms`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str, *, content: bool = False) -> Stored | None:
        query = f"SELECT {_COLUMNS}, {_CONTENT if content else 'NULL'} FROM items WHERE id = ?"
        with self._database.reading() as db:
            line = db.execute(query, (name,)).fetchone()
        return _stored(line) if line is not None else None

    def get_many(self, names: Sequence[str]) -> dict[str, Stored]:
        if not names:
            return {}
        query = f"SELECT {_COLUMNS}, NULL FROM items WHERE id IN carray(?)"
        with self._database.reading() as db:
            return {line[1]: _stored(line) for line in db.execute(query, (apsw.carray(tuple(names)),))}

    def at(self, rows: Iterable[int]) -> dict[int, Stored]:
        wanted = np.fromiter(set(rows), np.int64)
        if not wanted.size:
            return {}
        query = f"SELECT {_COLUMNS}, NULL FROM items WHERE row IN carray(?)"
        with self._database.reading() as db:
            return {line[0]: _stored(line) for line in db.execute(query, (apsw.carray(wanted),))}

    def page(self, where: Filter = EVERYTHING, *, limit: int = 100, cursor: str | None = None) -> Page:
        """By row: rows are never used again and never change."""
        if not 1 <= limit <= MAX_LIMIT:
            raise FilterError(f"limit is {limit}; it must be from 1 to {MAX_LIMIT}")
        condition, parameters = compile_filter(where)
        query = f"SELECT {_COLUMNS}, NULL FROM items WHERE row > ? AND {condition} ORDER BY row LIMIT ?"
        with self._database.reading() as db:
            found = [_stored(line) for line in db.execute(query, (_after(cursor), *parameters, limit + 1))]
        return Page(tuple(found[:limit]), str(found[limit - 1].row) if len(found) > limit else None)

    def count(self, where: Filter = EVERYTHING) -> int:
        condition, parameters = compile_filter(where)
        with self._database.reading() as db:
            return int(db.execute(f"SELECT count(*) FROM items WHERE {condition}", parameters).get)

    def facets(self, keys: Sequence[str], where: Filter = EVERYTHING, *, limit: int = 20) -> dict[str, Facet]:
        for key in keys:
            check_key(key)
        with self._database.reading() as db:
            rows = None if where == EVERYTHING else self.rows_matching(where)
            return {key: facet(db, key, rows, limit=limit) for key in keys}

    def rows_matching(self, where: Filter) -> Rows:
        condition, parameters = compile_filter(where)
        with self._database.reading() as db:
            lines = db.execute(f"SELECT row FROM items WHERE {condition} ORDER BY row", parameters)
            return np.fromiter((line[0] for line in lines), np.int64)

    def rows_since(self, seq: int) -> Rows:
        with self._database.reading() as db:
            lines = db.execute("SELECT row FROM items WHERE seq > ? ORDER BY row", (seq,))
            return np.fromiter((line[0] for line in lines), np.int64)

    def contents(self) -> tuple[Rows, Contents]:
        with self._database.reading() as db:
            lines: list[Any] = db.execute("SELECT row, substr(sha256, 1, 8) FROM items ORDER BY row").fetchall()
        return np.array([line[0] for line in lines], dtype=np.int64), seen.contents(line[1] for line in lines)

    def kept_source(self, row: int) -> tuple[bytes, bytes] | None:
        query = "SELECT sha256, content FROM items CROSS JOIN sources ON item = row WHERE row = ?"
        with self._database.reading() as db:
            return db.execute(query, (row,)).fetchone()


def _after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise FilterError(f"cursor is {cursor!r:.80}; it must be one that an earlier page gave")
    return int(cursor)


def _stored(line: tuple[Any, ...]) -> Stored:
    row, name, label, metadata, created, updated, seq, sha256, size, path, media_type, content = line
    source = Source(sha256, size, content=content, path=path, media_type=media_type)
    return Stored(row, name, source, label, json.loads(metadata), created, updated, seq)
