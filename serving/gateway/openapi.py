"""What `GET /openapi.json` says: every listed route in OpenAPI 3.1, from the types of operations and dialects."""

import copy
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import msgspec
import orjson

from serving.gateway.call import Call
from serving.gateway.dialects.schemas import paths_and_schemas
from serving.gateway.interpreter import Interpreter
from serving.gateway.operations import Ask
from serving.gateway.routes import Route
from serving.gateway.service import Service
from serving.protocol.media_types import JSON, PICTURE
from serving.protocol.operations import OPERATIONS, ItemChange, NewItem, Request, UpdateRequest, UpsertRequest
from serving.protocol.validation import NO_OPTIONS, SINGULAR
from serving.protocol.wire import Reply

_TEMPLATE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)\}")
_FILES = ("image", "images")
_KEYS: list[dict[str, Any]] = [{"bearer": []}, {"header": []}]


class ErrorDetails(msgspec.Struct):
    """What went wrong: the HTTP status again, and a sentence."""

    status: int
    message: str


class Error(msgspec.Struct):
    """An error of the whole request."""

    error: ErrorDetails


class Answered(msgspec.Struct):
    """A reply names the release that gave it; what else it has, docs/api.md says by operation."""

    release: str


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of these routes, but for those that are not listed."""
    listed = [one for one in routes if one.listed]
    foreign = [one.endpoint.route for one in listed if isinstance(one.endpoint, Interpreter)]
    paths, schemas = paths_and_schemas(foreign)
    for one in listed:
        if not isinstance(one.endpoint, Interpreter):
            paths.setdefault(one.path, {})[one.method.lower()] = _described(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "simclr", "version": metadata.version("simclr-service")},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas | _schemas(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, *_KEYS],
    }


def openapi_route(routes: tuple[Route, ...]) -> Route:
    """The route at which the document of `routes`, and of itself, is found."""

    async def show(service: Service, call: Call) -> Reply:
        return Reply(200, written())

    @cache
    def written() -> bytes:
        return orjson.dumps(document((*routes, route)))

    route = Route("GET", "/openapi.json", show, None, "This document.")
    return route


@cache
def _schemas() -> dict[str, Any]:
    """Of everything that requests are made of, and of replies."""
    kinds = [Error, Answered, *(row.request for row in OPERATIONS.values())]
    _, found = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    return found


def _described(route: Route) -> dict[str, Any]:
    parameters = [_in_path(name) for name in _PARAMETER.findall(route.path)]
    found: dict[str, Any] = {"summary": route.summary, "operationId": _name(route)}
    if (ask := _asked(route)) is not None:
        fields = _fields(ask, {one["name"] for one in parameters})
        if route.method == "GET":
            parameters += [_in_query(name, one) for name, one in fields["properties"].items() if name not in NO_OPTIONS]
        elif fields["properties"]:
            found["requestBody"] = {"required": _are_needed(fields), "content": _bodies(fields)}
        found["responses"] = _responses(ask)
    else:
        found["responses"] = {"200": {"description": "OK", "content": {JSON: {"schema": {"type": "object"}}}}}
    if parameters := [*parameters, *route.about.get("parameters", ())]:
        found["parameters"] = parameters
    found["responses"]["default"] = {"description": "Error", "content": {JSON: {"schema": _reference("Error")}}}
    found["responses"] |= route.about.get("responses", {})
    besides = {name: one for name, one in route.about.items() if name not in found}
    return found | ({"security": []} if route.scope is None else {}) | besides


def _asked(route: Route) -> Ask | None:
    """What the route asks of a worker, where that is one operation."""
    if isinstance(route.endpoint, Ask):
        return route.endpoint
    return None if route.operation is None else Ask(route.operation)


def _name(route: Route) -> str:
    """Of the method and the path, as what is generated from the document calls it."""
    words = (one.strip("{}") for one in route.path.strip("/").split("/"))
    return "_".join((route.method.lower(), *(re.sub(r"\W", "_", word) for word in words)))


def _fields(ask: Ask, in_path: set[str]) -> dict[str, Any]:
    """The schema of an operation's fields, without those that the path says."""
    said = {*in_path, *ask.said}
    schema, ways = _all_fields(OPERATIONS[ask.operation].request, of_one="id" in said)
    decided = said & {name for way in ways for name in way}
    kept = [way - said for way in ways if decided <= way]
    gone = said | {name for way in ways for name in way} - {name for way in kept for name in way}
    gone |= {plural for plural, singular in SINGULAR.items() if singular in said}
    schema["properties"] = {name: one for name, one in schema["properties"].items() if name not in gone}
    if len(kept) == 1:
        return schema | {"required": sorted(kept[0])}
    return schema | {"required": [], "anyOf": [{"required": sorted(way)} for way in kept]}


def _all_fields(request: type[Request], *, of_one: bool) -> tuple[dict[str, Any], list[set[str]]]:
    """The schema of what an operation takes, perhaps of one item, and each set of fields that is enough."""
    schema = copy.deepcopy(_schemas()[request.__name__])
    fields: dict[str, Any] = schema["properties"]
    del fields["op"]
    ways = [{*schema["required"]} - {"op"}]
    if request is UpsertRequest:  # one item's fields may stand in place of a list
        fields |= _schemas()[NewItem.__name__]["properties"]
        ways += [{"id", "image"}]
    elif request is UpdateRequest and of_one:
        fields |= _schemas()[ItemChange.__name__]["properties"]
        ways += [{"id"}]
    for plural, singular in SINGULAR.items():
        if plural in fields:
            fields[singular] = fields[plural]["items"]
            ways += [way - {plural} | {singular} for way in ways if plural in way]
    return schema, ways


def _are_needed(fields: Mapping[str, Any]) -> bool:
    return bool(fields["required"] or fields.get("anyOf"))


def _bodies(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {JSON: {"schema": fields}, "multipart/form-data": {"schema": {"type": "object"}}}
    if any(name in fields["properties"] for name in _FILES):
        found["image/*"] = {}  # the file itself
    return found


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A field as the query has it: several words with commas, and JSON for what is no single value."""
    found: dict[str, Any] = {"name": name, "in": "query"}
    if name == "include":
        return found | {"style": "form", "explode": False, "schema": schema}
    if schema.get("type") in ("array", "object") or not {"type", "enum", "anyOf"} & schema.keys():
        return found | {"content": {JSON: {"schema": schema}}}
    return found | {"schema": schema}


def _responses(ask: Ask) -> dict[str, Any]:
    schema = {"schema": _reference("Answered")}
    replies = (PICTURE,) if ask.picture else OPERATIONS[ask.operation].replies
    return {"200": {"description": "OK", "content": {one: schema if one == JSON else {} for one in replies}}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(name=name)}


# What a route may say besides, as its `about`.
CREATED = {"responses": {"201": {"description": "There was none"}}}
TABLE = {
    "requestBody": {"required": True, "content": {"text/csv": {}, "text/tab-separated-values": {}}},
    "parameters": [
        _in_query("id_column", {"type": "string"}),
        _in_query("label_column", {"type": "string"}),
        _in_query("remove_empty", {"type": "boolean"}),
    ],
}
