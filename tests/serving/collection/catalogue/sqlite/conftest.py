"""What tests of SQLite alone begin with."""

from pathlib import Path

import pytest

from serving.collection.catalogue.sqlite.catalogue import SqliteCatalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> SqliteCatalogue:
    """A new, empty one."""
    return SqliteCatalogue(tmp_path, create=True)
