"""One SQLite file and its transactions: what a `with writing()` block did is on disk when the block ends.

Opened through apsw, which brings its own current SQLite (the one of many systems has the WAL-reset corruption
bug), in WAL mode with synchronous=FULL. Every thread has its own connection. SQLite's errors become our own here.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakSet

import apsw

from serving.collection.catalogue.sqlite.connecting import BUSY_MS, connect, is_writable
from serving.collection.catalogue.sqlite.identity import Identity, Opened
from serving.collection.errors import CatalogueBusy, CatalogueError, CatalogueFull, CatalogueReadOnly

_LOG = logging.getLogger(__name__)
WHOLE_WRITE_FAILED = (
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.BusyError,
    apsw.ReadOnlyError,
    apsw.CorruptError,
    apsw.NotADBError,
)


class Database:
    """A SQLite file, safe to share among threads."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._create = create
        self._identity: Identity | None = None
        self._open: WeakSet[Opened] = WeakSet()  # of every thread
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def connection(self) -> apsw.Connection:
        """This thread's connection. Raises `CatalogueGone` if the file is no longer the one that was opened first."""
        if not hasattr(self._local, "connection"):
            self._open_here()
        if not in_transaction(self._local.connection):
            self._local.opened.check()
            if self._local.opened.outdated:
                self._open_here()
        return self._local.connection  # type: ignore[no-any-return]

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Everything read inside is of one moment; within another such block, of that block's moment."""
        db = self.connection
        if in_transaction(db):
            yield db
            return
        with in_our_words(self.path, "could not be read"):
            db.execute("BEGIN")
            try:
                yield db
            finally:
                if in_transaction(db):  # an error may have ended it
                    db.execute("ROLLBACK")  # nothing was written

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """All or nothing: committed and synced when the block ends, rolled back if it or the commit raises.

        Raises `CatalogueReadOnly`, `CatalogueFull` or `CatalogueBusy` where nothing can be written.
        """
        db = self.connection
        assert not in_transaction(db), "a write inside a read could not see what others wrote meanwhile"
        if db.readonly("main"):
            if not is_writable(self.path):
                raise CatalogueReadOnly(f"{self.path} can only be read here")
            self._open_here()  # it has become writable
            db = self.connection
        with in_our_words(self.path, "took nothing of this write, is the disk full?"):
            db.execute("BEGIN IMMEDIATE")  # the write lock first, so that what is read here stays true
            try:
                yield db
                db.execute("COMMIT")
                self._local.opened.check()  # else nobody will ever read what was written
            except BaseException:
                if in_transaction(db):
                    db.execute("ROLLBACK")
                raise

    def shorten_log(self) -> None:
        """Move the log into the file and give its room back, as far as others who read allow."""
        try:
            self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            _LOG.debug("%s: the log stays as long as it is: %s", self.path, error)

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self._local, "connection"):
            self._local.connection.close()
            del self._local.connection, self._local.opened

    def _open_here(self) -> None:
        """Open this thread's connection, in place of the one that it has."""
        self.close()
        with in_our_words(self.path, "could not be opened"):
            connection, constant = connect(self.path, create=self._create)
        self._local.connection, self._local.opened = connection, self._opened(constant=constant)

    def _opened(self, *, constant: bool) -> Opened:
        """The files of a new connection, which must be those of the others."""
        with self._lock:
            if self._identity is None and not is_writable(self.path):
                _LOG.warning("%s is read-only: nothing can be written to this collection here", self.path)
            self._identity = self._identity or Identity.of(self.path)
            log = next((opened.log for opened in self._open if opened.log is not None), None)
            opened = Opened(self.path, self._identity, log, constant=constant)
            self._open.add(opened)
            return opened


@contextmanager
def in_our_words(path: Path, what_failed: str) -> Iterator[None]:
    """SQLite's errors about this file as ours."""
    try:
        yield
    except apsw.ReadOnlyError as error:
        raise CatalogueReadOnly(f"{path} can only be read here ({error})") from error
    except (apsw.FullError, apsw.IOError) as error:  # many file systems report a full disk as a failed write
        if not is_writable(path):
            raise CatalogueReadOnly(f"{path} can only be read here ({error})") from error
        raise CatalogueFull(f"{path} {what_failed} ({error})") from error
    except apsw.BusyError as error:
        seconds = BUSY_MS // 1000
        raise CatalogueBusy(f"{path} was busy with others' writes for {seconds} s: try again") from error
    except (apsw.CorruptError, apsw.NotADBError, apsw.CantOpenError) as error:
        raise CatalogueError(f"{path} is no usable SQLite file: {error}") from error


def next_sequence(db: apsw.Connection) -> int:
    """The sequence number of the write that is under way, taken inside its transaction."""
    return int(db.execute("UPDATE sequence SET last = last + 1 RETURNING last").get)


def in_transaction(db: apsw.Connection) -> bool:
    """Whether a transaction is open now; it may have ended by itself."""
    return db.in_transaction


@contextmanager
def savepoint(db: apsw.Connection) -> Iterator[None]:
    """A part of a transaction that can fail alone."""
    db.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        if in_transaction(db):  # a full disk may have rolled back the whole
            db.execute("ROLLBACK TO part")
            db.execute("RELEASE part")
        raise
    db.execute("RELEASE part")
