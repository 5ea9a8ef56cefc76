"""From an older schema to the current one, in one transaction: rows, sequence numbers, vectors and bases stay.

Schema 1 kept no record of deletions, so of its bases only those are taken over that stand at the last write to
their release; any other is built again from the vectors. Schema 2 had no spaces: every release that has vectors
becomes one, and what it lacks is pending.
"""

import time
from collections.abc import Callable

import apsw

from serving.collection.catalogue.sqlite import pending

_RENAMED = ("items", "vectors", "bases", "changes", "sequence")
_COPIES = (
    "INSERT INTO items(row, id, label, path, sha256, metadata, created, updated, seq) "
    "SELECT row, id, label, source, sha256, '{}', :now, :now, seq FROM first_items",
    "INSERT INTO vectors(item, release, seq, sha256, vector) "
    "SELECT item, release, seq, sha256, vector FROM first_vectors ORDER BY item, release",
    "INSERT INTO bases(release, file, sha256, count, dim, seq, kind, recall, facts) "
    "SELECT release, file, sha256, count, dim, seq, 'exact', 1.0, '{}' FROM first_bases "
    "WHERE seq = (SELECT seq FROM first_changes WHERE first_changes.release = first_bases.release)",
    "INSERT INTO changes(release, seq, dim, forgotten) "
    "SELECT release, seq, (SELECT length(vector) / 4 FROM first_vectors WHERE first_vectors.release = "
    "first_changes.release LIMIT 1), coalesce((SELECT seq FROM bases WHERE bases.release = first_changes.release), 0) "
    "FROM first_changes",
    "UPDATE sequence SET last = (SELECT last FROM first_sequence)",
)


def _from_first(db: apsw.Connection, tables: str) -> None:
    db.execute("DROP INDEX vectors_by_release")
    for name in _RENAMED:
        db.execute(f"ALTER TABLE {name} RENAME TO first_{name}")
    db.execute(tables)
    now = time.time_ns() // 1_000_000
    for copy in _COPIES:
        db.execute(copy, {"now": now} if ":now" in copy else None)
    for name in ("vectors", "items", "bases", "changes", "sequence"):  # vectors first: they refer to items
        db.execute(f"DROP TABLE first_{name}")
    _open_spaces(db)


def _from_second(db: apsw.Connection, _: str) -> None:
    db.execute(pending.TABLES)
    _open_spaces(db)


def _open_spaces(db: apsw.Connection) -> None:
    db.execute(pending.OPEN_THOSE_WITH_VECTORS)
    db.execute(pending.COMPUTE_ANEW)


MIGRATIONS: dict[int, Callable[[apsw.Connection, str], None]] = {1: _from_first, 2: _from_second}
