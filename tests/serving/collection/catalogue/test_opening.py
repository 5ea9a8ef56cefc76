"""Which catalogue a folder has."""

from pathlib import Path

import pytest

from serving.collection.catalogue.opening import is_collection, open_catalogue
from serving.collection.errors import CatalogueError


@pytest.mark.parametrize("address", ["postgresql://user:secret@host/digits", "sqlite:///tmp/x", Path("http://host/x")])
def test_an_address_is_refused_without_what_may_be_secret_of_it(address: str | Path) -> None:
    with pytest.raises(CatalogueError, match="must be a folder of this machine") as refused:
        open_catalogue(address, create=True)
    assert "secret" not in str(refused.value)


def test_a_folder_is_a_collection_once_it_has_a_catalogue(tmp_path: Path) -> None:
    assert not is_collection(tmp_path)
    open_catalogue(tmp_path / "c:d", create=True)
    assert is_collection(tmp_path / "c:d")
