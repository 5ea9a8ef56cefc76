"""Why a request can't be answered at all, found before any work is done on it.

What only the work can show, as a broken image or an id that does not exist, fails later and alone.
"""

from collections.abc import Iterable
from typing import Any

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.errors import CollectionError
from serving.inference.pixels import REQUEST_PIXELS, too_many_pixels
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of
from serving.operations.served import Served
from serving.protocol.messages import RequestError
from serving.protocol.operations import OPERATIONS, Operation, Request


def begin(requests: Iterable[Request], served: Served) -> list[Exchange[Request]]:
    """An exchange for each request; those that can't be answered have their refusal as the answer already."""
    return [_begun(request, served) for request in requests]


def operations_of(served: Served) -> list[str]:
    """What can be asked of this server."""
    return [name for name, row in OPERATIONS.items() if _lack(row, served) is None]


def _begun(request: Request, served: Served) -> Exchange[Request]:
    one = Exchange(request)
    one.answer = _lack(one.operation, served) or _lack_of_choice(one, served) or request.refusal()
    if one.answer is None and (pixels := too_many_pixels(request.files)) is not None:
        one.answer = RequestError(
            f"the images have {pixels} pixels in all; at most {REQUEST_PIXELS} are accepted in one request", 413
        )
    written = getattr(request, "filter", None)
    if one.answer is None and written is not None:
        try:
            one.where = parse_filter(written)
        except CollectionError as error:
            one.answer = failure_of(error)
    return one


def _lack(operation: Operation, served: Served) -> RequestError | None:
    """What the operation needs and this server has not."""
    if operation.needs_labels and served.classes is None:
        return _no_probe(served)
    if operation.needs_collection and served.collection is None:
        return RequestError(
            f"the server was started without a collection, so it has nothing to answer {operation.name} from", 409
        )
    return None


def _lack_of_choice(one: Exchange[Any], served: Served) -> RequestError | None:
    """What the request itself chose and this server has not."""
    if one.searches and served.collection is None:
        return RequestError("the server was started without a collection: there are no neighbours to vote", 409)
    if "logits" in one.request.included and served.classes is None:
        return _no_probe(served)
    if getattr(one.request, "encoding_format", None) == "binary" and served.medians is None:
        return RequestError(
            f"release {served.title} has no medians, which binary embeddings need: publish it again", 409
        )
    return None


def _no_probe(served: Served) -> RequestError:
    return RequestError(f"release {served.title} has no linear probe, because its images had no labels", 409)
