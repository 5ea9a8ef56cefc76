"""The collection's errors as answers to a request: which status, and no path of this machine in the message."""

import logging

from serving.collection.errors import (
    CatalogueBusy,
    CatalogueFull,
    CatalogueGone,
    CatalogueReadOnly,
    CollectionError,
    FilterError,
    ItemError,
)
from serving.protocol.messages import RequestError

_LOG = logging.getLogger(__name__)


def failure_of(error: CollectionError) -> RequestError:
    """400 for what was asked wrongly, 507 for a full disk, 403 for a read-only one, 503 for what may pass, else 500."""
    if isinstance(error, ItemError | FilterError):
        return RequestError(str(error), 400)
    _LOG.error("the collection: %s", error)
    if isinstance(error, CatalogueFull):
        return RequestError("the collection's disk took nothing of this write; it is probably full", 507)
    if isinstance(error, CatalogueBusy):
        return RequestError("the collection is busy with other writes, and this one was not made: try again", 503)
    if isinstance(error, CatalogueReadOnly):
        return RequestError("the collection is read-only: nothing can be written to it here", 403)
    if isinstance(error, CatalogueGone):
        return RequestError("the collection's catalogue was deleted or replaced: the server must be restarted", 503)
    return RequestError("the collection can't be used just now; the server's log says why", 500)


def unforeseen(error: Exception) -> RequestError:
    """The answer where something broke that should not have; the log has the rest."""
    return RequestError(f"internal error: {type(error).__name__}", 500)
