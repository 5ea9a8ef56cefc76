"""What tests of the collection begin with."""

from pathlib import Path

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """A new, empty one."""
    return open_catalogue(tmp_path, create=True)
