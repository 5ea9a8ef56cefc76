"""Random items. Functions for use inside a collection's `turn`."""

from typing import Any

import numpy as np

from serving.operations.exchange import Exchange
from serving.operations.opened import OpenCollection
from serving.operations.showing import show_with
from serving.protocol.operations import SampleRequest


def sample(collection: OpenCollection, one: Exchange[SampleRequest]) -> dict[str, Any]:
    """Items that the filter matches, each as likely as any other, none twice, in random order."""
    request, items = one.request, collection.catalogue.items
    rows = items.rows_matching(one.selection)
    chosen = np.random.default_rng(request.seed).choice(rows, min(request.count, len(rows)), replace=False).tolist()
    found = items.at(chosen)
    return {"items": show_with(collection, [found[row] for row in chosen], request.include)}
