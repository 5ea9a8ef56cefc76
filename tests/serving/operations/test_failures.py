"""Which status the collection's errors have, and that no path of the server is told."""

import pytest

from serving.collection.errors import (
    CatalogueBusy,
    CatalogueError,
    CatalogueFull,
    CatalogueGone,
    CatalogueReadOnly,
    CollectionError,
    FilterError,
    ItemError,
)
from serving.operations.failures import failure_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ItemError, 400),
        (FilterError, 400),
        (CatalogueReadOnly, 403),
        (CatalogueBusy, 503),
        (CatalogueGone, 503),
        (CatalogueFull, 507),
        (CatalogueError, 500),
    ],
)
def test_an_error_of_the_collection_has_its_status(error: type[CollectionError], status: int) -> None:
    failure = failure_of(error("/srv/collection/catalogue.sqlite: no"))
    assert failure.status == status
    assert ("/srv" in str(failure)) == (status == 400)  # what was asked wrongly is explained in full
