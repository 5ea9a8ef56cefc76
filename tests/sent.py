"""What a client sent, read as the gateway reads it: for tests that answer a client themselves."""

import httpx

from serving.gateway.addresses import ROUTES
from serving.gateway.bodies import multipart_boundary, parts_of
from serving.gateway.operations import Ask
from serving.gateway.routes import Table
from serving.protocol.body import Body
from serving.protocol.operations import OPERATIONS, Operation
from serving.protocol.parts import Part, body_from

_TABLE = Table(ROUTES)


def operation_at(method: str, path: str) -> Operation:
    """The operation that the gateway has at an address."""
    route, _ = _TABLE.find(method, path)
    assert isinstance(route.endpoint, Ask), route
    return OPERATIONS[route.endpoint.operation]


def sent_parts(content: bytes, content_type: str | None) -> list[Part]:
    """The parts of a request's body."""
    boundary = multipart_boundary(content_type)
    return [Part("body", content, content_type)] if boundary is None else parts_of(content, boundary)


def sent_body(request: httpx.Request) -> Body:
    """The fields and files of a request."""
    parts = sent_parts(request.content, request.headers.get("content-type"))
    return body_from(request.url.params.multi_items(), [one for one in parts if one.content])


def asked_for(request: httpx.Request) -> Operation:
    """The operation that a request asks for."""
    return operation_at(request.method, request.url.raw_path.partition(b"?")[0].decode())
