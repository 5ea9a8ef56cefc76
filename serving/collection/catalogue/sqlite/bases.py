"""The table `bases` in SQLite: which FAISS file belongs to a release, and what was measured of it."""

import json
from typing import Any

import apsw

from core.files.json_text import json_text
from serving.collection.catalogue.bases import BaseRecord, Position
from serving.collection.catalogue.interface import Bases
from serving.collection.catalogue.sqlite.database import Database

_NAMES = ("release", "file", "sha256", "count", "dim", "seq", "kind", "recall", "facts")
_COLUMNS = ", ".join(_NAMES)


class SqliteBases(Bases):
    """The table `bases`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, release: str) -> BaseRecord | None:
        with self._database.reading() as db:
            return base_of(db, release)

    def position(self, release: str) -> Position:
        query = (
            "SELECT changes.seq, file, facts ->> 'depth' FROM changes LEFT JOIN bases USING(release) WHERE release = ?1"
        )
        with self._database.reading() as db:
            line: Any = db.execute(query, (release,)).fetchone()
        return Position(*line) if line is not None else Position(0, None)

    def files(self) -> set[str]:
        with self._database.reading() as db:
            return {line[0] for line in db.execute("SELECT file FROM bases")}

    def put(self, base: BaseRecord) -> None:
        line = (*(getattr(base, name) for name in _NAMES[:-1]), json_text(base.facts))
        with self._database.writing() as db:
            before = base_of(db, base.release)
            db.execute(f"INSERT OR REPLACE INTO bases({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", line)
            _forget_deletions(db, base.release, before.seq if before is not None else 0)

    def drop(self, release: str) -> None:
        with self._database.writing() as db:
            db.execute("DELETE FROM bases WHERE release = ?", (release,))


def base_of(db: apsw.Connection, release: str) -> BaseRecord | None:
    """The base of the release, if it has one."""
    line: Any = db.execute(f"SELECT {_COLUMNS} FROM bases WHERE release = ?", (release,)).fetchone()
    if line is None:
        return None
    return BaseRecord(**dict(zip(_NAMES, line, strict=True)) | {"facts": json.loads(line[-1])})


def _forget_deletions(db: apsw.Connection, release: str, until: int) -> None:
    db.execute("UPDATE changes SET forgotten = max(forgotten, ?) WHERE release = ?", (until, release))
    db.execute("DELETE FROM deletions WHERE seq <= (SELECT min(forgotten) FROM changes)")
