"""The embedding spaces that a collection is kept complete in, and the items that wait for a vector of one of them.

Whoever writes an item makes it pending, in the same transaction, in every other space: so no write is lost for a
release that is about to serve, or is kept for a rollback. A space begins as *filling*; once nothing waits in it, it is
*complete* for good, and from then on no search by it goes by an item that waits.
Functions on a connection. Left out: storing the missing vectors (`serving.collection.catalogue.sqlite.filling`), and
making them (`serving.operations.catching_up`, `serving.jobs.reembed`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import apsw
import numpy as np

TABLES = """
CREATE TABLE spaces(            -- those that every write is to reach
    release TEXT PRIMARY KEY,   -- as in `vectors`: the digest that names the embedding space
    complete INTEGER NOT NULL   -- whether there was a moment when nothing waited
) STRICT;
CREATE TABLE pending(           -- items without a vector of the bytes that they have now
    release TEXT NOT NULL,
    item INTEGER NOT NULL REFERENCES items(row) ON DELETE CASCADE,
    seq INTEGER NOT NULL,       -- the write that made it so
    error TEXT,                 -- why it can't be embedded; such an item waits no more
    PRIMARY KEY(release, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX pending_by_item ON pending(item);
CREATE INDEX pending_waiting ON pending(release, seq, item) WHERE error IS NULL;
"""
_WAITS = "EXISTS(SELECT 1 FROM pending WHERE pending.release = spaces.release AND error IS NULL)"
_MISSING = (
    "INSERT INTO pending(release, item, seq) SELECT spaces.release, row, items.seq FROM spaces CROSS JOIN items "
    "WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE item = row AND vectors.release = spaces.release "
    "AND vectors.sha256 = items.sha256)"
)
COMPUTE_ANEW = f"DELETE FROM pending; {_MISSING}; UPDATE spaces SET complete = NOT {_WAITS};"
OPEN_THOSE_WITH_VECTORS = (
    "INSERT OR IGNORE INTO spaces(release, complete) SELECT release, 0 FROM changes "
    "WHERE EXISTS (SELECT 1 FROM vectors WHERE vectors.release = changes.release);"
)
_CONCERNED = (  # asked first, as with one space a write is to cost what it would without any
    "SELECT EXISTS(SELECT 1 FROM pending WHERE release = ?1), EXISTS(SELECT 1 FROM spaces WHERE release != ?1)"
)
_CURRENT_ELSEWHERE = (  # an item that has again the bytes that there is a vector of
    "DELETE FROM pending WHERE item IN carray(?1) AND release != ?2 AND EXISTS (SELECT 1 FROM vectors "
    "WHERE vectors.item = pending.item AND vectors.release = pending.release "
    "AND vectors.sha256 = (SELECT sha256 FROM items WHERE row = pending.item))"
)
_PENDING_ELSEWHERE = (  # CROSS: from the few rows to the few spaces
    "INSERT INTO pending(release, item, seq) SELECT spaces.release, row, ?1 FROM carray(?2) CROSS JOIN items "
    "ON row = value CROSS JOIN spaces WHERE spaces.release != ?3 AND NOT EXISTS (SELECT 1 FROM vectors "
    "WHERE item = row AND vectors.release = spaces.release AND vectors.sha256 = items.sha256) "
    "ON CONFLICT(release, item) DO UPDATE SET seq = excluded.seq, error = NULL"
)


@dataclass(frozen=True)
class Space:
    """An embedding space: how many items wait for a vector of it, and how many can't have one."""

    release: str
    complete: bool
    pending: int
    failed: int


@dataclass(frozen=True)
class Pending:
    """An item that waits for a vector of the bytes whose digest is `sha256`, since write `seq`.

    `path` says where the bytes lie, None where the catalogue has them.
    """

    row: int
    id: str
    sha256: bytes
    path: str | None
    seq: int


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` of a space's items, for several who share the work."""

    index: int = 0
    count: int = 1


WHOLE = Part()


def open_space(db: apsw.Connection, release: str) -> None:
    """Keep this space from now on; what lacks a vector of it is pending.

    Of one that was being closed some is still there. Vectors that are left count where they are of the item's present
    bytes; what was pending says nothing any more, as no write noted anything since, and vectors were removed.
    """
    if db.execute("SELECT EXISTS(SELECT 1 FROM spaces WHERE release = ?)", (release,)).get:
        mark_complete(db, release)
        return
    db.execute("DELETE FROM pending WHERE release = ?", (release,))
    db.execute("INSERT INTO spaces(release, complete) VALUES (?, 0)", (release,))
    db.execute(f"{_MISSING} AND spaces.release = ?", (release,))
    mark_complete(db, release)


def mark_complete(db: apsw.Connection, release: str) -> None:
    """The space is complete, if nothing waits in it."""
    db.execute(f"UPDATE spaces SET complete = 1 WHERE release = ? AND NOT complete AND NOT {_WAITS}", (release,))


def mark_complete_but(db: apsw.Connection, release: str, few: int) -> None:
    """The space is complete, if at most so many items wait in it: who searches next embeds them first."""
    db.execute(
        "UPDATE spaces SET complete = 1 WHERE release = ?1 AND NOT complete AND ?2 >= (SELECT count(*) FROM "
        "(SELECT 1 FROM pending WHERE pending.release = ?1 AND error IS NULL LIMIT ?2 + 1))",
        (release, few),
    )


def is_settled(db: apsw.Connection, release: str) -> bool | None:
    """Whether the space's mark says what is so; None if it is not kept. Cheap, and writes nothing."""
    line = db.execute(f"SELECT complete OR {_WAITS} FROM spaces WHERE release = ?", (release,)).fetchone()
    return bool(line[0]) if line is not None else None


def space_of(db: apsw.Connection, release: str) -> Space | None:
    """The space as it is; None if the collection does not keep it."""
    complete = db.execute("SELECT complete FROM spaces WHERE release = ?", (release,)).get
    if complete is None:
        return None
    total = int(db.execute("SELECT count(*) FROM pending WHERE release = ?", (release,)).get)
    waiting = int(db.execute("SELECT count(*) FROM pending WHERE release = ? AND error IS NULL", (release,)).get)
    return Space(release, bool(complete), waiting, total - waiting)


def spaces(db: apsw.Connection) -> list[Space]:
    """All that the collection keeps."""
    names: list[str] = [str(line[0]) for line in db.execute("SELECT release FROM spaces ORDER BY release").fetchall()]
    return [space for name in names if (space := space_of(db, name)) is not None]


def behind(db: apsw.Connection, release: str, until: int | None) -> bool:
    """Whether the space is complete and yet something waits, if so asked since a write up to `until`.

    Asked before every search: one look into an index.
    """
    query = (
        "SELECT EXISTS(SELECT 1 FROM pending WHERE release = ?1 AND error IS NULL AND seq <= ?2) "
        "AND EXISTS(SELECT 1 FROM spaces WHERE release = ?1 AND complete)"
    )
    return bool(db.execute(query, (release, _number(until))).get)


def waiting(
    db: apsw.Connection, release: str, *, limit: int, part: Part, after: Pending | None, until: int | None
) -> list[Pending]:
    """Up to `limit` items of the part that wait, the longest waiting first, after one that came before."""
    query = (
        "SELECT row, id, sha256, path, pending.seq FROM pending CROSS JOIN items ON row = item WHERE release = ? "
        "AND error IS NULL AND (pending.seq, item) > (?, ?) AND pending.seq <= ? AND item % ? = ? "
        "AND EXISTS (SELECT 1 FROM spaces WHERE spaces.release = pending.release) "
        "ORDER BY pending.seq, item LIMIT ?"
    )
    place = (after.seq, after.row) if after is not None else (-1, 0)
    lines = db.execute(query, (release, *place, _number(until), part.count, part.index, limit))
    return [Pending(*line) for line in lines]


def count_waiting(db: apsw.Connection, release: str, part: Part) -> int:
    """How many items of the part wait."""
    query = "SELECT count(*) FROM pending WHERE release = ? AND error IS NULL AND item % ? = ?"
    return int(db.execute(query, (release, part.count, part.index)).get)


def failures(db: apsw.Connection, release: str, limit: int) -> dict[str, str]:
    """Of up to `limit` items that can't be embedded, by id, why."""
    query = (
        "SELECT id, error FROM pending CROSS JOIN items ON row = item WHERE release = ? AND error IS NOT NULL LIMIT ?"
    )
    return dict(db.execute(query, (release, limit)))


def retry_failed(db: apsw.Connection, release: str, part: Part) -> None:
    """Have those wait again that could not be embedded; the space is filling meanwhile, so that no search waits."""
    db.execute(
        "UPDATE pending SET error = NULL WHERE release = ? AND error IS NOT NULL AND item % ? = ?",
        (release, part.count, part.index),
    )
    if db.changes():
        db.execute("UPDATE spaces SET complete = 0 WHERE release = ?", (release,))


def note_stored(db: apsw.Connection, rows: Sequence[int], *, release: str, seq: int) -> None:
    """Write `seq` stored these rows with vectors of `release`: they wait there no more, but may in other spaces."""
    here, elsewhere = db.execute(_CONCERNED, (release,)).fetchone() or (False, False)
    if here:
        chosen = apsw.carray(np.asarray(rows, np.int64))
        db.execute("DELETE FROM pending WHERE release = ? AND item IN carray(?)", (release, chosen))
    if elsewhere:
        chosen = apsw.carray(np.asarray(rows, np.int64))
        db.execute(_CURRENT_ELSEWHERE, (chosen, release))
        db.execute(_PENDING_ELSEWHERE, (seq, chosen, release))


def forget_space(db: apsw.Connection, release: str) -> None:
    """No write is to reach the space any more, and it has no base. Its vectors and what is pending are still there."""
    db.execute("DELETE FROM spaces WHERE release = ?", (release,))
    db.execute("DELETE FROM bases WHERE release = ?", (release,))


def remove_some(db: apsw.Connection, release: str, limit: int) -> bool:
    """Remove up to `limit` pending items or vectors of a forgotten space, in the end its numbers; True at the end.

    Looks in the same transaction whether the space was opened again meanwhile: then all that is there is its own.
    """
    if db.execute("SELECT EXISTS(SELECT 1 FROM spaces WHERE release = ?)", (release,)).get:
        return True
    pending = "SELECT item FROM pending WHERE release = ?1 LIMIT ?2"
    db.execute(f"DELETE FROM pending WHERE release = ?1 AND item IN ({pending})", (release, limit))
    if db.changes():
        return False
    vectors = "SELECT item FROM vectors WHERE release = ?1 LIMIT ?2"
    db.execute(f"DELETE FROM vectors WHERE release = ?1 AND item IN ({vectors})", (release, limit))
    if db.changes():
        return False
    db.execute("DELETE FROM changes WHERE release = ?", (release,))
    return True


def _number(until: int | None) -> int:
    return 2**62 if until is None else until
