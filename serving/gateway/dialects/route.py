"""What each dialect consists of: routes as values, from an HTTP request to our own and from our answer to a reply.

Nothing here sends or receives. A server calls `begin` of a route, has the request answered, and calls its `finish`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import orjson

from core.images.decode import ImageError
from serving.gateway.dialects.model import ServedModel
from serving.protocol.messages import Answer, Failure, RequestError
from serving.protocol.operations import Request
from serving.protocol.wire import Reply


@dataclass(frozen=True)
class HttpRequest:
    """An HTTP request as a dialect reads it; `path` has the parameters of its path, headers have lower-case names."""

    body: bytes = b""
    path: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Translation:
    """Our request, and what writes its answer in the dialect; that may raise `RequestError`."""

    request: Request
    write: Callable[[Answer], Reply]


Endpoint = Callable[[HttpRequest, ServedModel | None], Translation | Reply]


@dataclass(frozen=True)
class DialectRoute:
    """One address of a dialect.

    A part of `path` in braces is a parameter, of one segment. `endpoint` gets None in place of the model when no worker
    can answer, or where the route `needs_model` no more than that; it may raise `RequestError`. `refuse` writes any
    error as the dialect does. `body`, `reply` and `error` are the types of the JSON, for OpenAPI; with `binary`,
    tensors may stand behind it. An `open` route needs no key.
    """

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint
    refuse: Callable[[Failure], Reply]
    summary: str
    error: type
    body: type | None = None
    reply: type | None = None
    status: int = HTTPStatus.OK
    binary: bool = False
    open: bool = False
    needs_model: bool = True

    def begin(self, request: HttpRequest, model: ServedModel | None) -> Translation | Reply:
        """Our request, or a reply that needs no worker; raises nothing for a request that is wrong."""
        try:
            return self.endpoint(request, model)
        except RequestError as error:
            return self.refuse(error)

    def finish(self, translation: Translation, answer: Answer | Failure) -> Reply:
        """The reply to a request that `begin` gave."""
        if not isinstance(answer, Answer):
            return self.refuse(answer)
        try:
            return translation.write(answer)
        except (RequestError, ImageError) as error:
            return self.refuse(error)


def embeddings_of(answer: Answer, what: str) -> list[dict[str, Any]]:
    """The results of embed, all of them; raises the first failure as that of `what`, with its number from 0.

    None of these protocols has a form for results of which some are missing.
    """
    for at, result in enumerate(answer.results):
        if isinstance(result, RequestError | ImageError):
            raise RequestError(f"{what} {at}: {result}", result.status)
    return answer.results


def error_reply(error: Failure, content: Mapping[str, Any]) -> Reply:
    """An error whose JSON is `content`."""
    after = getattr(error, "retry_after", None)
    headers = {} if after is None else {"retry-after": str(after)}
    return Reply(error.status, orjson.dumps(content), headers=headers)


def text_error(error: Failure) -> Reply:
    """An error that is no more than a text."""
    return error_reply(error, {"error": str(error)})
