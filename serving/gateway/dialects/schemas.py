"""The routes of the dialects as OpenAPI 3.1 has them, from the types of their JSON."""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from serving.gateway.dialects.route import DialectRoute
from serving.protocol.media_types import JSON, RAW

_PARAMETER = re.compile(r"\{(\w+)\}")
_TEMPLATE = "#/components/schemas/{name}"


def paths_and_schemas(routes: Iterable[DialectRoute]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The `paths` of an OpenAPI document, and what they need of its `components/schemas`."""
    listed = [*routes]
    kinds = sorted({kind for one in listed for kind in _types(one)}, key=lambda kind: kind.__name__)
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    of_type = dict(zip(kinds, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in listed:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, of_type)
    return paths, schemas


def _types(route: DialectRoute) -> list[type]:
    return [kind for kind in (route.body, route.reply, route.error) if kind is not None]


def _operation(route: DialectRoute, of_type: Mapping[type, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.reply is not None:
        success["content"] = _content(of_type[route.reply], binary=route.binary)
    found: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.endpoint.__module__.rpartition('.')[2]}_{_words(route)}",
        "responses": {
            str(int(route.status)): success,
            "default": {"description": "Error", "content": _content(of_type[route.error])},
        },
    }
    if names := _PARAMETER.findall(route.path):
        found["parameters"] = [_path_parameter(name) for name in names]
    if route.body is not None:
        found["requestBody"] = {"required": True, "content": _content(of_type[route.body], binary=route.binary)}
    if route.open:
        found["security"] = []
    return found


def _content(schema: Any, *, binary: bool = False) -> dict[str, Any]:
    """JSON; where tensors may follow it, also the type that says so, of which no schema can say more."""
    return {JSON: {"schema": schema}} | ({RAW: {}} if binary else {})


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _words(route: DialectRoute) -> str:
    """What tells this operation from the others: the function, and the path where several have it."""
    return route.endpoint.__name__ + ("_version" if "{version}" in route.path else "")
