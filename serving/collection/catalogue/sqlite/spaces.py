"""The embedding spaces in SQLite: keeping one complete, filling it, and giving it up."""

from collections.abc import Sequence

import apsw

from serving.collection.catalogue.interface import Spaces
from serving.collection.catalogue.spaces import WHOLE, Part, Pending, Space, check_filling
from serving.collection.catalogue.sqlite.database import Database, next_sequence
from serving.collection.catalogue.sqlite.pending import MISSING, WAITS, mark_complete
from serving.collection.catalogue.sqlite.vectors import check_dim, note_change
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.errors import CatalogueError

_REMOVED_AT_ONCE = 2_000  # vectors of a closed space in one transaction: others write between two
_LAST = 2**62  # above every sequence number
_STORE = (
    "INSERT INTO vectors(item, release, seq, sha256, vector) SELECT row, ?1, ?2, sha256, ?5 FROM items "
    "WHERE row = ?3 AND sha256 = ?4 AND EXISTS (SELECT 1 FROM pending WHERE release = ?1 AND item = ?3) "
    "AND EXISTS (SELECT 1 FROM spaces WHERE release = ?1) "
    "ON CONFLICT(item, release) DO UPDATE SET seq = excluded.seq, sha256 = excluded.sha256, vector = excluded.vector"
)
_FAIL = "UPDATE pending SET error = ? WHERE release = ? AND item = ? AND seq = ? AND error IS NULL"
_BEHIND = (
    "SELECT EXISTS(SELECT 1 FROM pending WHERE release = ?1 AND error IS NULL AND seq <= ?2) "
    "AND EXISTS(SELECT 1 FROM spaces WHERE release = ?1 AND complete)"
)
_PENDING = (
    "SELECT row, id, sha256, path, pending.seq FROM pending CROSS JOIN items ON row = item WHERE release = ? "
    "AND error IS NULL AND (pending.seq, item) > (?, ?) AND pending.seq <= ? AND item % ? = ? "
    "AND EXISTS (SELECT 1 FROM spaces WHERE spaces.release = pending.release) "
    "ORDER BY pending.seq, item LIMIT ?"
)


class SqliteSpaces(Spaces):
    """The tables `spaces` and `pending`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, space: str) -> Space:
        if self._settled(space) is not True:
            with self._database.writing() as db:
                _open(db, space)
        found = self.get(space)
        if found is None:
            raise CatalogueError(f"space {space[:16]} was closed while it was being opened: try again")
        return found

    def close(self, space: str) -> None:
        with self._database.writing() as db:
            forget_space(db, space)
        done = False
        while not done:
            with self._database.writing() as db:
                done = remove_some(db, space, _REMOVED_AT_ONCE)

    def get(self, space: str) -> Space | None:
        with self._database.reading() as db:
            return _space(db, space)

    def all(self) -> list[Space]:
        with self._database.reading() as db:
            names = [str(line[0]) for line in db.execute("SELECT release FROM spaces ORDER BY release").fetchall()]
            return [space for name in names if (space := _space(db, name)) is not None]

    def settle(self, space: str) -> None:
        if self._settled(space) is False:
            with self._database.writing() as db:
                mark_complete(db, space)

    def settle_but(self, space: str, few: int) -> None:
        query = (
            "UPDATE spaces SET complete = 1 WHERE release = ?1 AND NOT complete AND ?2 >= (SELECT count(*) FROM "
            "(SELECT 1 FROM pending WHERE pending.release = ?1 AND error IS NULL LIMIT ?2 + 1))"
        )
        with self._database.writing() as db:
            db.execute(query, (space, few))

    def behind(self, space: str, *, until: int | None = None) -> bool:
        with self._database.reading() as db:
            return bool(db.execute(_BEHIND, (space, _LAST if until is None else until)).get)

    def pending(
        self, space: str, *, limit: int, part: Part = WHOLE, after: Pending | None = None, until: int | None = None
    ) -> list[Pending]:
        place = (after.seq, after.row) if after is not None else (-1, 0)
        which = (_LAST if until is None else until, part.count, part.index, limit)
        with self._database.reading() as db:
            return [Pending(*line) for line in db.execute(_PENDING, (space, *place, *which))]

    def count_pending(self, space: str, part: Part = WHOLE) -> int:
        query = "SELECT count(*) FROM pending WHERE release = ? AND error IS NULL AND item % ? = ?"
        with self._database.reading() as db:
            return int(db.execute(query, (space, part.count, part.index)).get)

    def fill(self, space: str, rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors) -> int:
        vectors = check_filling(rows, digests, vectors)
        stored = 0
        with self._database.writing() as db:
            check_dim(db, space, vectors.shape[1])
            seq = next_sequence(db)
            for row, digest, vector in zip(map(int, rows), digests, vectors, strict=True):
                db.execute(_STORE, (space, seq, row, digest, vector.tobytes()))
                if db.changes():
                    stored += 1
                    db.execute("DELETE FROM pending WHERE release = ? AND item = ?", (space, row))
            if stored:
                note_change(db, space, seq, vectors.shape[1])
            mark_complete(db, space)
        return stored

    def fail(self, space: str, reasons: Sequence[tuple[Pending, str]]) -> int:
        failed = 0
        with self._database.writing() as db:
            for pending, reason in reasons:
                db.execute(_FAIL, (reason, space, pending.row, pending.seq))
                failed += db.changes()
            mark_complete(db, space)
        return failed

    def failures(self, space: str, *, limit: int) -> dict[str, str]:
        query = (
            "SELECT id, error FROM pending CROSS JOIN items ON row = item WHERE release = ? AND error IS NOT NULL "
            "LIMIT ?"
        )
        with self._database.reading() as db:
            return dict(db.execute(query, (space, limit)))

    def retry_failed(self, space: str, part: Part = WHOLE) -> None:
        query = "UPDATE pending SET error = NULL WHERE release = ? AND error IS NOT NULL AND item % ? = ?"
        with self._database.writing() as db:
            db.execute(query, (space, part.count, part.index))
            if db.changes():
                db.execute("UPDATE spaces SET complete = 0 WHERE release = ?", (space,))

    def _settled(self, space: str) -> bool | None:
        """Whether the space's mark says what is so; None if it is not kept. Cheap, and writes nothing."""
        with self._database.reading() as db:
            line = db.execute(f"SELECT complete OR {WAITS} FROM spaces WHERE release = ?", (space,)).fetchone()
        return bool(line[0]) if line is not None else None


def _open(db: apsw.Connection, release: str) -> None:
    """Keep this space from now on; what lacks a vector of it is pending.

    Some of a space that was being closed is still there. Vectors that are left count if they are of the item's present
    bytes; what was pending says nothing any more, as no write noted anything since, and vectors were removed.
    """
    if not _is_kept(db, release):
        db.execute("DELETE FROM pending WHERE release = ?", (release,))
        db.execute("INSERT INTO spaces(release, complete) VALUES (?, 0)", (release,))
        db.execute(f"{MISSING} AND spaces.release = ?", (release,))
    mark_complete(db, release)


def _is_kept(db: apsw.Connection, release: str) -> bool:
    return bool(db.execute("SELECT EXISTS(SELECT 1 FROM spaces WHERE release = ?)", (release,)).get)


def _space(db: apsw.Connection, release: str) -> Space | None:
    complete = db.execute("SELECT complete FROM spaces WHERE release = ?", (release,)).get
    if complete is None:
        return None
    total = int(db.execute("SELECT count(*) FROM pending WHERE release = ?", (release,)).get)
    waiting = int(db.execute("SELECT count(*) FROM pending WHERE release = ? AND error IS NULL", (release,)).get)
    return Space(release, bool(complete), waiting, total - waiting)


def forget_space(db: apsw.Connection, release: str) -> None:
    """No write is to reach the space any more, and it has no base. Its vectors and what is pending are still there."""
    db.execute("DELETE FROM spaces WHERE release = ?", (release,))
    db.execute("DELETE FROM bases WHERE release = ?", (release,))


def remove_some(db: apsw.Connection, release: str, limit: int) -> bool:
    """Remove up to `limit` pending items or vectors of a forgotten space, finally its numbers; True at the end.

    Looks in the same transaction whether the space was opened again meanwhile: then all that is there is its own.
    """
    if _is_kept(db, release):
        return True
    for table in ("pending", "vectors"):
        chosen = f"SELECT item FROM {table} WHERE release = ?1 LIMIT ?2"
        db.execute(f"DELETE FROM {table} WHERE release = ?1 AND item IN ({chosen})", (release, limit))
        if db.changes():
            return False
    db.execute("DELETE FROM changes WHERE release = ?", (release,))
    return True
