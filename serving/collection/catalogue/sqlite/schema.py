"""The catalogue's tables (schema 3), and opening a file that may be new, older or newer."""

import apsw

from serving.collection.catalogue.sqlite.database import Database
from serving.collection.catalogue.sqlite.migration import MIGRATIONS
from serving.collection.catalogue.sqlite.pending import TABLES as TABLES_OF_SPACES
from serving.collection.errors import CatalogueError

SCHEMA = 3
TABLES = f"""
CREATE TABLE items(
    row INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again: bases and deltas know an item by it
    id TEXT NOT NULL UNIQUE,
    label TEXT,
    path TEXT,                  -- of the source, a file or archive.zip//member, where its bytes are not in `sources`
    media_type TEXT,
    bytes INTEGER,              -- how many the source has; unknown for items that came from schema 1
    sha256 BLOB NOT NULL,       -- of the source's bytes
    metadata TEXT NOT NULL,     -- a JSON object
    created INTEGER NOT NULL,   -- milliseconds since 1970
    updated INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE INDEX items_by_label ON items(label);
CREATE TABLE sources(           -- apart, so that going through items does not read their pictures
    item INTEGER PRIMARY KEY REFERENCES items(row) ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;
CREATE TABLE vectors(
    item INTEGER NOT NULL REFERENCES items(row) ON DELETE CASCADE,
    release TEXT NOT NULL,      -- the release's digest: vectors of two releases are never compared
    seq INTEGER NOT NULL,
    sha256 BLOB NOT NULL,       -- of the bytes that this vector was computed from
    vector BLOB NOT NULL,       -- float32, little-endian, unit norm; last, as what follows it is slow to reach
    PRIMARY KEY(item, release)
) STRICT;
CREATE INDEX vectors_by_release ON vectors(release, item, seq);
CREATE INDEX vectors_by_seq ON vectors(release, seq);
CREATE TABLE terms(             -- every scalar of the metadata, for filters
    key TEXT NOT NULL,
    value ANY NOT NULL,         -- booleans and null are blobs, and so differ from every number and text
    item INTEGER NOT NULL REFERENCES items(row) ON DELETE CASCADE,
    PRIMARY KEY(key, value, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX terms_by_item ON terms(item);
CREATE TABLE deletions(row INTEGER PRIMARY KEY, seq INTEGER NOT NULL) STRICT;
CREATE INDEX deletions_by_seq ON deletions(seq);
CREATE TABLE bases(
    release TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    count INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    seq INTEGER NOT NULL,       -- the base holds every write up to here
    kind TEXT NOT NULL,
    recall REAL NOT NULL,       -- at 10, measured when it was built
    facts TEXT NOT NULL         -- a JSON object: search depth and how it was found
) STRICT;
CREATE TABLE changes(
    release TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,       -- the last write to its vectors
    dim INTEGER,                -- of its vectors
    forgotten INTEGER NOT NULL  -- deletions up to here may have been dropped from `deletions`
) STRICT;
{TABLES_OF_SPACES}
CREATE TABLE sequence(last INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
"""


def prepare(database: Database, *, create: bool) -> None:
    """Make the tables of a new file, bring an older one up to date, refuse a newer one."""
    version = _version(database.connection, database)
    if (version == 0 and create) or version in MIGRATIONS:
        try:
            with database.writing() as db:
                _bring_up_to_date(db)
        except apsw.Error as error:
            raise CatalogueError(
                f"{database.path} could not be brought to schema {SCHEMA}, and stays as it was: {error}"
            ) from error
        version = _version(database.connection, database)
    if version != SCHEMA:
        raise CatalogueError(
            f"{database.path} has schema {version}; this version reads schema {SCHEMA} and older ones: "
            f"use the version that wrote it, or a newer one"
        )


def _bring_up_to_date(db: apsw.Connection) -> None:
    version = db.pragma("user_version")  # again, as another process may have been first
    if version == 0:
        if db.execute("SELECT count(*) FROM sqlite_schema").get:
            return  # another program's file, or one that lost its number
        db.execute(TABLES)
    elif version in MIGRATIONS:
        MIGRATIONS[version](db, TABLES)
    else:
        return
    db.pragma("user_version", SCHEMA)


def _version(db: apsw.Connection, database: Database) -> int:
    try:
        return int(db.pragma("user_version"))
    except apsw.Error as error:
        raise CatalogueError(f"{database.path} is no usable SQLite file: {error}") from error
