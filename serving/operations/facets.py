"""How often the values of keys occur. Functions for use inside a collection's `turn`."""

from typing import Any

from serving.collection.catalogue.facets import Facet
from serving.operations.exchange import Exchange
from serving.operations.opened import OpenCollection
from serving.protocol.messages import RequestError
from serving.protocol.operations import FacetsRequest

_MAX_TEXT = 1 << 20  # characters of all values in one reply; one value may be as large as an item's metadata


def facets(collection: OpenCollection, one: Exchange[FacetsRequest]) -> dict[str, Any]:
    """By key, the most frequent values with their counts, how many values there are, and how many items lack it."""
    request = one.request
    found = collection.catalogue.items.facets(request.keys, one.selection, limit=request.limit)
    _check_size(found)
    values = {key: [{"value": value, "count": count} for value, count in of.values] for key, of in found.items()}
    return {
        "facets": values,
        "distinct": {key: of.distinct for key, of in found.items()},
        "missing": {key: of.missing for key, of in found.items()},
    }


def _check_size(found: dict[str, Facet]) -> None:
    size = sum(len(value) for of in found.values() for value, _ in of.values if isinstance(value, str))
    if size > _MAX_TEXT:
        raise RequestError(f"the values have {size} characters in all; at most {_MAX_TEXT}: ask for fewer", 413)
