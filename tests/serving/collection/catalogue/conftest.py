"""The catalogue that a test of the contract begins with, of every kind."""

from pathlib import Path

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Space
from tests.serving.collection.catalogue.openers import KINDS, Opener
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE


@pytest.fixture(params=KINDS)
def opener(request: pytest.FixtureRequest) -> Opener:
    return Opener(request.param)


@pytest.fixture
def catalogue(opener: Opener, tmp_path: Path) -> Catalogue:
    """A new, empty one."""
    return opener.open(tmp_path, create=True)


@pytest.fixture
def both(catalogue: Catalogue) -> Catalogue:
    """Two complete spaces, and nothing in them."""
    assert catalogue.spaces.open(RELEASE) == Space(RELEASE, complete=True, pending=0, failed=0)
    assert catalogue.spaces.open(OTHER_RELEASE) == Space(OTHER_RELEASE, complete=True, pending=0, failed=0)
    return catalogue
