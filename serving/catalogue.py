"""The catalogue: SQLite with items and their vectors. It is the truth; the FAISS file is a cache of it.

Every write is one `BEGIN IMMEDIATE` transaction with a sequence number of its own, in WAL mode with
synchronous=FULL: what was returned is on disk. Opened through apsw, which brings its own current SQLite
(the one of many systems has the WAL-reset corruption bug).
Left out: searching (`serving.neighbours`), and making the vectors (`serving.ingest`).
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
FILE_NAME = "catalogue.sqlite"
_BUSY_MS = 10_000
_TABLES = """
CREATE TABLE items(
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    label TEXT,
    source TEXT,            -- a file, or archive.zip!member: what a new release embeds again
    sha256 BLOB NOT NULL,   -- of the source's bytes
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE vectors(
    item INTEGER NOT NULL REFERENCES items(row) ON DELETE CASCADE,
    release TEXT NOT NULL,  -- the release's digest: vectors of two releases are never compared
    vector BLOB NOT NULL,   -- float32, little-endian, unit norm
    sha256 BLOB NOT NULL,   -- of the bytes that this vector was computed from
    seq INTEGER NOT NULL,
    PRIMARY KEY(item, release)
) STRICT;
CREATE INDEX vectors_by_release ON vectors(release, item);
CREATE TABLE bases(
    release TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    count INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    seq INTEGER NOT NULL    -- the base holds every write up to here
) STRICT;
CREATE TABLE changes(release TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;  -- the last write to each
CREATE TABLE sequence(last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
"""


class CatalogueError(ValueError):
    """A catalogue that can't be used, or a write that did not happen."""


@dataclass(frozen=True)
class Item:
    """One image of the collection, without its vector."""

    id: str
    label: str | None
    source: str | None
    sha256: bytes


@dataclass(frozen=True)
class Base:
    """The FAISS file that belongs to one release: its name in the collection's folder, and its digest."""

    release: str
    file: str
    sha256: str
    count: int
    dim: int
    seq: int


class Catalogue:
    """One collection's SQLite file. Safe to share among threads: each has its own connection."""

    def __init__(self, folder: Path | str, *, create: bool = False) -> None:
        self.folder = Path(folder)
        self._path = self.folder / FILE_NAME
        if not create and not self._path.is_file():
            raise CatalogueError(f"{self.folder} is no collection: it has no {FILE_NAME}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._create = create
        self._local = threading.local()
        self._check_schema(create)

    def upsert(self, items: Sequence[Item], vectors: NDArray[np.float32], release: str) -> int:
        """Store items with their embeddings (N, D) by `release`; the same id again replaces.

        All or nothing. Returns the write's sequence number once it is on disk.
        """
        if len(items) != len(vectors):
            raise ValueError(f"{len(items)} items came with {len(vectors)} vectors; they must be as many")
        db = self._db
        with _immediate(db):
            seq = self._next_sequence(db)
            self._note_change(db, release, seq)
            for item, vector in zip(items, vectors, strict=True):
                row = self._upsert_item(db, item, seq)
                db.execute(
                    "INSERT OR REPLACE INTO vectors(item, release, vector, sha256, seq) VALUES (?, ?, ?, ?, ?)",
                    (row, release, vector.astype("<f4").tobytes(), item.sha256, seq),
                )
        return seq

    def known(self, release: str) -> dict[str, Item]:
        """By id, every item that has a vector by `release`, with the digest that this vector was computed from."""
        query = "SELECT id, label, source, vectors.sha256 FROM items JOIN vectors ON item = row WHERE release = ?"
        return {line[0]: Item(*line) for line in self._db.execute(query, (release,))}

    def keep_only(self, ids: Iterable[str]) -> int:
        """Delete every item whose id is not among `ids`; returns how many."""
        db = self._db
        with _immediate(db):
            db.execute("CREATE TEMP TABLE wanted(id TEXT PRIMARY KEY)")
            db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((name,) for name in ids))
            unwanted = "SELECT row FROM items WHERE id NOT IN (SELECT id FROM wanted)"
            touched = [*db.execute(f"SELECT DISTINCT release FROM vectors WHERE item IN ({unwanted})")]
            db.execute(f"DELETE FROM items WHERE row IN ({unwanted})")
            gone = db.changes()
            if gone:
                seq = self._next_sequence(db)
                for (release,) in touched:
                    self._note_change(db, release, seq)
            db.execute("DROP TABLE wanted")
        return int(gone)

    def vectors(self, release: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Every (row, embedding) by `release`, in row order."""
        query = "SELECT item, vector FROM vectors WHERE release = ? ORDER BY item"
        for row, blob in self._db.execute(query, (release,)):
            yield int(row), np.frombuffer(blob, "<f4")

    def vectors_of(self, ids: Sequence[str], release: str) -> dict[str, NDArray[np.float32]]:
        """The stored embedding of each of `ids` that has one by `release`."""
        query = "SELECT vector FROM vectors JOIN items ON item = row WHERE id = ? AND release = ?"
        found = {name: self._db.execute(query, (name, release)).fetchone() for name in ids}
        return {name: np.frombuffer(line[0], "<f4") for name, line in found.items() if line is not None}

    def items(self, rows: Iterable[int]) -> dict[int, Item]:
        """The items at these rows."""
        query = "SELECT id, label, source, sha256 FROM items WHERE row = ?"
        found = ((row, self._db.execute(query, (row,)).fetchone()) for row in set(rows))
        return {row: Item(*line) for row, line in found if line is not None}

    def get(self, name: str) -> Item | None:
        """The item of this id, or None."""
        line = self._db.execute("SELECT id, label, source, sha256 FROM items WHERE id = ?", (name,)).fetchone()
        return Item(*line) if line is not None else None

    def count(self, release: str) -> int:
        """How many items have a vector by `release`."""
        return int(next(self._db.execute("SELECT count(*) FROM vectors WHERE release = ?", (release,)))[0])

    def releases(self) -> list[str]:
        """The digests of the releases that this collection has vectors of."""
        return [line[0] for line in self._db.execute("SELECT DISTINCT release FROM vectors")]

    def sequence(self, release: str) -> int:
        """The sequence number of the last write that changed vectors of `release`; 0 if there was none."""
        line = self._db.execute("SELECT seq FROM changes WHERE release = ?", (release,)).fetchone()
        return int(line[0]) if line is not None else 0

    def base(self, release: str) -> Base | None:
        """The FAISS file of this release, if one was built."""
        query = "SELECT release, file, sha256, count, dim, seq FROM bases WHERE release = ?"
        line = self._db.execute(query, (release,)).fetchone()
        return Base(*line) if line is not None else None

    def set_base(self, base: Base) -> None:
        """Name a new FAISS file; the file must already be whole and synced."""
        with _immediate(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO bases(release, file, sha256, count, dim, seq) VALUES (?, ?, ?, ?, ?, ?)",
                (base.release, base.file, base.sha256, base.count, base.dim, base.seq),
            )

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self._local, "db"):
            self._local.db.close()
            del self._local.db

    @property
    def _db(self) -> apsw.Connection:
        if not hasattr(self._local, "db"):
            self._local.db = _connect(self._path, create=self._create)
        return self._local.db  # type: ignore[no-any-return]

    @staticmethod
    def _next_sequence(db: apsw.Connection) -> int:
        return int(next(db.execute("UPDATE sequence SET last = last + 1 RETURNING last"))[0])

    @staticmethod
    def _note_change(db: apsw.Connection, release: str, seq: int) -> None:
        db.execute("INSERT OR REPLACE INTO changes(release, seq) VALUES (?, ?)", (release, seq))

    @staticmethod
    def _upsert_item(db: apsw.Connection, item: Item, seq: int) -> int:
        line = db.execute(
            "INSERT INTO items(id, label, source, sha256, seq) VALUES (?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE "
            "SET label = excluded.label, source = excluded.source, sha256 = excluded.sha256, seq = excluded.seq "
            "RETURNING row",
            (item.id, item.label, item.source, item.sha256, seq),
        )
        return int(next(line)[0])

    def _check_schema(self, create: bool) -> None:
        db = self._db
        try:
            version = db.pragma("user_version")
            if version == 0 and create:
                with _immediate(db):
                    if db.pragma("user_version") == 0:
                        db.execute(_TABLES)
                        db.pragma("user_version", SCHEMA)
                version = SCHEMA
        except apsw.Error as error:
            raise CatalogueError(f"{self._path} is no usable SQLite file: {error}") from error
        if version != SCHEMA:
            raise CatalogueError(f"{self._path} has schema {version}; this version reads schema {SCHEMA}")


def _connect(path: Path, *, create: bool) -> apsw.Connection:
    try:
        db = apsw.Connection(str(path))
        db.set_busy_timeout(_BUSY_MS)
        if create and db.pragma("journal_mode") != "wal":  # changing it wants the file alone, and does not wait
            db.pragma("journal_mode", "wal")
        db.pragma("synchronous", "full")
        db.pragma("foreign_keys", True)
    except apsw.Error as error:
        raise CatalogueError(f"{path} is no usable SQLite file: {error}") from error
    return db


class _immediate:  # noqa: N801 - reads as the statement it is
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on any error: takes the write lock before it reads."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except apsw.Error as refused:
                error = refused
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        if isinstance(error, apsw.FullError | apsw.IOError):
            raise CatalogueError(f"nothing of this write was stored, is the disk full? ({error})") from error
        if error is not None and kind is None:
            raise error
