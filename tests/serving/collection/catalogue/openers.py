"""Every kind of catalogue, for the tests that hold all of them to one contract."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, SqliteCatalogue

KINDS = ("sqlite",)


@dataclass(frozen=True)
class Opener:
    """Opens catalogues of one kind in folders of a test, and brings them into trouble."""

    kind: str

    def open(self, folder: Path, *, create: bool = False) -> Catalogue:
        return open_catalogue(folder, create=create)

    @contextmanager
    def busy(self, catalogue: Catalogue) -> Iterator[None]:
        """Another process writes for longer than this catalogue waits."""
        assert isinstance(catalogue, SqliteCatalogue)
        catalogue.database.connection.set_busy_timeout(1)
        other = apsw.Connection(str(catalogue.folder / FILE_NAME))
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()

    @contextmanager
    def full(self, catalogue: Catalogue) -> Iterator[None]:
        """There is room for no more than a few kilobytes."""
        assert isinstance(catalogue, SqliteCatalogue)
        db = catalogue.database.connection
        before = db.pragma("max_page_count")
        db.pragma("max_page_count", db.pragma("page_count") + 2)
        try:
            yield
        finally:
            db.pragma("max_page_count", before)

    def in_small_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What takes several transactions takes many."""
        monkeypatch.setattr("serving.collection.catalogue.sqlite.spaces._REMOVED_AT_ONCE", 7)
