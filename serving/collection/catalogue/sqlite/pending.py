"""What waits for a vector, in SQLite: the tables of the spaces, and what every write notes in them.

Functions within a transaction.
"""

from collections.abc import Sequence

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
WAITS = "EXISTS(SELECT 1 FROM pending WHERE pending.release = spaces.release AND error IS NULL)"
MISSING = (
    "INSERT INTO pending(release, item, seq) SELECT spaces.release, row, items.seq FROM spaces CROSS JOIN items "
    "WHERE NOT EXISTS (SELECT 1 FROM vectors WHERE item = row AND vectors.release = spaces.release "
    "AND vectors.sha256 = items.sha256)"
)
COMPUTE_ANEW = f"DELETE FROM pending; {MISSING}; UPDATE spaces SET complete = NOT {WAITS};"
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


def mark_complete(db: apsw.Connection, release: str) -> None:
    """The space is complete, if nothing waits in it."""
    db.execute(f"UPDATE spaces SET complete = 1 WHERE release = ? AND NOT complete AND NOT {WAITS}", (release,))


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
