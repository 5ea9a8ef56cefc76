"""What tests of the collection begin with."""

from pathlib import Path

import pytest

from serving.collection.catalogue.sqlite.catalogue import Catalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """A new, empty one."""
    return Catalogue(tmp_path, create=True)
