"""An operation as an endpoint: its fields come from the path, the query, the form and the JSON, whatever is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.images.decode import ImageError
from serving.gateway.call import Call
from serving.gateway.routes import COLLECTION, Route
from serving.gateway.service import Service
from serving.protocol.agreed import DEFAULT_COLLECTION
from serving.protocol.body import Body
from serving.protocol.media_types import PICTURE, MediaType
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import OPERATIONS
from serving.protocol.parts import body_from
from serving.protocol.wire import Reply, encode, request_for


@dataclass(frozen=True)
class Ask:
    """Asks a worker for an operation.

    `said` are fields that the path has decided. `single` replies with the one result itself in place of a list.
    """

    operation: str
    said: Mapping[str, Any] = field(default_factory=dict)
    single: bool = False
    picture: bool = False

    async def __call__(self, service: Service, call: Call) -> Reply:
        """Read the request, have it answered, and write the reply."""
        answer, media_type = await self.answer(service, call)
        return encode(answer, media_type)

    async def answer(self, service: Service, call: Call) -> tuple[Answer | RequestError, MediaType]:
        """The answer to the request, and in which media type it is wanted."""
        check_collection(call)
        body = await self._body(call)
        accept = PICTURE if self.picture else call.headers.get("accept", "")
        request, media_type = request_for(body, OPERATIONS[self.operation], accept)
        answer = await service.ask(call, request)
        return (only(answer) if self.single else answer), media_type

    async def _body(self, call: Call) -> Body:
        found = body_from(call.query, await call.parts(), accept=call.headers.get("accept", ""))
        for op in (*found.texts.get("op", ()), *([found.said["op"]] if "op" in found.said else [])):
            if op != self.operation:
                raise RequestError(f"op is {op!r:.80}, and the path says {self.operation!r}: leave op out")
        named = {**self.said, **{name: text for name, text in call.params.items() if name != COLLECTION}}
        for name, value in named.items():
            if name in found.texts or name in found.said:
                raise RequestError(f"{name} is said by the path already, as {value!r:.80}: leave it out elsewhere")
        return Body({**found.said, **named}, found.texts, found.files)


def check_collection(call: Call) -> None:
    """Refuse another collection than the one that there is, with 404."""
    name = call.params.get(COLLECTION, DEFAULT_COLLECTION)
    if name != DEFAULT_COLLECTION:
        raise RequestError(f"there is no collection {name!r}; this server has {DEFAULT_COLLECTION!r}", 404)


def operation_route(method: str, path: str, operation: str, summary: str, **options: Any) -> Route:
    """The route of an operation; `options` are those of `Ask`."""
    endpoint = Ask(operation, **options)
    return Route(method, path, endpoint, OPERATIONS[operation].scope, summary)


def only(answer: Answer | RequestError) -> Answer | RequestError:
    """The answer to a request for one item: its result is the whole of the reply, and its failure is that of all."""
    if isinstance(answer, RequestError):
        return answer
    if answer.more.get("missing"):
        return RequestError(f"no item with id {answer.more['missing'][0]!r}", 404)
    if not answer.results:
        return answer
    (result,) = answer.results
    if isinstance(result, RequestError | ImageError):
        return RequestError(str(result), result.status)
    return Answer(answer.release, more={**answer.more, **result}, worker=answer.worker)
