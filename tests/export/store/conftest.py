"""What tests of the model store begin with."""

from pathlib import Path

import pytest

from core.releases.model_store import ModelStore
from export.store.promotion import promote
from tests.export.store.small import NAME, approved, make_release


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Three releases: 1 was the champion, 2 is, 3 is good enough to be."""
    store = ModelStore(tmp_path / "store", NAME)
    first = make_release(store, 1)
    second = make_release(store, 2, promotion=approved(first))
    make_release(store, 3, promotion=approved(second))
    promote(store, "1")
    promote(store, "2")
    store.set_alias("challenger", 3)
    return store
