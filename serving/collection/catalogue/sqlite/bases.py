"""The table `bases`: which FAISS file belongs to a release, and what was measured of it.

Left out: the file itself (`serving.collection.index.faiss.base`).
"""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apsw

_COLUMNS = "release, file, sha256, count, dim, seq, kind, recall, facts"


@dataclass(frozen=True)
class Base:
    """A FAISS file of the collection's folder; it holds every write to its release up to `seq`.

    `recall` is at 10, measured when it was built; `facts` tell how deep it is searched and how that was found.
    """

    release: str
    file: str
    sha256: str
    count: int
    dim: int
    seq: int
    kind: str = "exact"
    recall: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)


class Position(NamedTuple):
    """Where a release stands: the number of the last write to its vectors; its base's file and depth, if it has one."""

    seq: int
    file: str | None
    depth: int | None = None


def position(db: apsw.Connection, release: str) -> Position:
    """Where the release stands now; cheap, as it is asked before every search."""
    query = "SELECT changes.seq, file, facts ->> 'depth' FROM changes LEFT JOIN bases USING(release) WHERE release = ?1"
    line: Any = db.execute(query, (release,)).fetchone()
    return Position(*line) if line is not None else Position(0, None)


def base_of(db: apsw.Connection, release: str) -> Base | None:
    """The base of the release, if it has one."""
    line: Any = db.execute(f"SELECT {_COLUMNS} FROM bases WHERE release = ?", (release,)).fetchone()
    return (
        Base(**dict(zip(_COLUMNS.split(", "), line, strict=True)) | {"facts": json.loads(line[-1])}) if line else None
    )


def base_files(db: apsw.Connection) -> set[str]:
    """The names of all files that are some release's base."""
    return {line[0] for line in db.execute("SELECT file FROM bases")}


def name_base(db: apsw.Connection, base: Base) -> None:
    """Make `base` the base of its release, and forget deletions that only the base before the last one lacked.

    Those since the last base stay, so that who still has that one mapped can go on with it.
    """
    before = base_of(db, base.release)
    db.execute(
        f"INSERT OR REPLACE INTO bases({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*(getattr(base, name) for name in _COLUMNS.split(", ")[:-1]), json.dumps(base.facts)),
    )
    _forget_deletions(db, base.release, before.seq if before is not None else 0)


def drop_base(db: apsw.Connection, release: str) -> None:
    """The release has no base any more."""
    db.execute("DELETE FROM bases WHERE release = ?", (release,))


def _forget_deletions(db: apsw.Connection, release: str, until: int) -> None:
    db.execute("UPDATE changes SET forgotten = max(forgotten, ?) WHERE release = ?", (until, release))
    db.execute("DELETE FROM deletions WHERE seq <= (SELECT min(forgotten) FROM changes)")
