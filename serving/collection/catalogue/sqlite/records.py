"""Items read from the catalogue: one, some, a page, how many, and what the collection holds in all.

Functions on a connection, of one moment each. Left out: vectors (`serving.collection.catalogue.sqlite.vectors`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from core.images import seen
from core.images.seen import Contents
from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Source, Stored
from serving.collection.catalogue.sqlite.bases import Base, base_of
from serving.collection.catalogue.sqlite.filter_sql import compile_filter
from serving.collection.catalogue.sqlite.vectors import Rows
from serving.collection.errors import FilterError

MAX_LIMIT = 10_000
_COLUMNS = "row, id, label, metadata, created, updated, seq, sha256, bytes, path, media_type"
_CONTENT = "(SELECT content FROM sources WHERE item = row)"


@dataclass(frozen=True)
class Page:
    """Some items, and where to go on; no cursor means that these were the last."""

    items: tuple[Stored, ...]
    cursor: str | None


@dataclass(frozen=True)
class ReleaseStats:
    """The vectors of one release: how many, the last write to them, and their base."""

    release: str
    vectors: int
    seq: int
    base: Base | None


@dataclass(frozen=True)
class Stats:
    """What a collection holds; `bytes_on_disk` is the catalogue's file and its log."""

    items: int
    seq: int
    labels: dict[str | None, int]
    sources_kept: int
    deletions_on_record: int
    bytes_on_disk: int
    releases: tuple[ReleaseStats, ...]


def get(db: apsw.Connection, name: str, *, content: bool) -> Stored | None:
    """The item of this id, on request with its source's bytes."""
    query = f"SELECT {_COLUMNS}, {_CONTENT if content else 'NULL'} FROM items WHERE id = ?"
    line = db.execute(query, (name,)).fetchone()
    return _stored(line) if line is not None else None


def get_many(db: apsw.Connection, names: Sequence[str]) -> dict[str, Stored]:
    """Those of `names` that there are, by id."""
    if not names:
        return {}
    lines = db.execute(f"SELECT {_COLUMNS}, NULL FROM items WHERE id IN carray(?)", (apsw.carray(tuple(names)),))
    return {line[1]: _stored(line) for line in lines}


def items_at(db: apsw.Connection, rows: Iterable[int]) -> dict[int, Stored]:
    """The items at these rows, by row."""
    wanted = np.fromiter(set(rows), np.int64)
    if not wanted.size:
        return {}
    lines = db.execute(f"SELECT {_COLUMNS}, NULL FROM items WHERE row IN carray(?)", (apsw.carray(wanted),))
    return {line[0]: _stored(line) for line in lines}


def page(db: apsw.Connection, where: Filter, *, limit: int, cursor: str | None) -> Page:
    """Up to `limit` items that come after the cursor, by row: rows are never used again and never change."""
    if not 1 <= limit <= MAX_LIMIT:
        raise FilterError(f"limit is {limit}; it must be from 1 to {MAX_LIMIT}")
    condition, parameters = compile_filter(where)
    query = f"SELECT {_COLUMNS}, NULL FROM items WHERE row > ? AND {condition} ORDER BY row LIMIT ?"
    found = [_stored(line) for line in db.execute(query, (_after(cursor), *parameters, limit + 1))]
    return Page(tuple(found[:limit]), str(found[limit - 1].row) if len(found) > limit else None)


def rows_matching(db: apsw.Connection, where: Filter) -> Rows:
    """The rows that a filter means, ascending."""
    condition, parameters = compile_filter(where)
    lines = db.execute(f"SELECT row FROM items WHERE {condition} ORDER BY row", parameters)
    return np.fromiter((line[0] for line in lines), np.int64)


def rows_since(db: apsw.Connection, seq: int) -> Rows:
    """The rows of items that were stored or changed after write `seq`, ascending."""
    lines = db.execute("SELECT row FROM items WHERE seq > ? ORDER BY row", (seq,))
    return np.fromiter((line[0] for line in lines), np.int64)


def contents(db: apsw.Connection) -> tuple[Rows, Contents]:
    """Every row, ascending, and which picture each shows."""
    lines: list[tuple[Any, ...]] = db.execute("SELECT row, substr(sha256, 1, 8) FROM items ORDER BY row").fetchall()
    return np.array([line[0] for line in lines], dtype=np.int64), seen.contents(line[1] for line in lines)


def count(db: apsw.Connection, where: Filter) -> int:
    """How many items a filter means."""
    condition, parameters = compile_filter(where)
    return int(db.execute(f"SELECT count(*) FROM items WHERE {condition}", parameters).get)


def stats(db: apsw.Connection, path: Path) -> Stats:
    """What the collection holds, in all."""
    log = path.with_name(f"{path.name}-wal")
    releases: list[Any] = db.execute("SELECT release, seq FROM changes ORDER BY release").fetchall()
    vectors = dict(db.execute("SELECT release, count(*) FROM vectors GROUP BY release"))
    return Stats(
        items=count(db, EVERYTHING),
        seq=int(db.execute("SELECT last FROM sequence").get),
        labels=dict(db.execute("SELECT label, count(*) FROM items GROUP BY label")),
        sources_kept=int(db.execute("SELECT count(*) FROM sources").get),
        deletions_on_record=int(db.execute("SELECT count(*) FROM deletions").get),
        bytes_on_disk=path.stat().st_size + (log.stat().st_size if log.exists() else 0),
        releases=tuple(
            ReleaseStats(release, vectors.get(release, 0), seq, base_of(db, release)) for release, seq in releases
        ),
    )


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
