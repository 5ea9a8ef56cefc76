"""What `GET /openapi.json` says: every listed route in OpenAPI 3.1, from the types of operations and dialects."""

import copy
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from typing import Any

import msgspec
import orjson

from serving.gateway import reference
from serving.gateway.call import Call
from serving.gateway.dialects.schemas import paths_and_schemas
from serving.gateway.interpreter import Interpreter
from serving.gateway.items import MERGE_PATCH, PatchItem
from serving.gateway.labels import Labelling
from serving.gateway.operations import Ask
from serving.gateway.replies import OF_ONE, OF_OPERATION, Collections, Error, Status
from serving.gateway.request_schemas import bodies, in_query, takes_files
from serving.gateway.routes import COLLECTION, Route
from serving.gateway.service import Service
from serving.protocol.agreed import DEFAULT_COLLECTION
from serving.protocol.media_types import JSON, PICTURE
from serving.protocol.operations import OPERATIONS, ItemChange, NewItem, Request, UpdateRequest, UpsertRequest
from serving.protocol.validation import SINGULAR
from serving.protocol.wire import Reply

_TEMPLATE = "#/components/schemas/{name}"
_WITHOUT_BODY = ("GET", "DELETE")  # of a DELETE no OpenAPI tool sends one
_PARAMETER = re.compile(r"\{(\w+)\}")
_FILTER = {"type": ["object", "null"], "description": "Only items that match, as docs/collections.md has filters."}
_REPLIES: tuple[type, ...] = (*OF_OPERATION.values(), *OF_ONE.values(), Collections, Labelling, Status)
_NOT_EMPTY = {"id", "ids", "label", "key", "keys"}
_IN_PATH: dict[str, dict[str, Any]] = {
    COLLECTION: {"enum": [DEFAULT_COLLECTION]},
    "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"},
}
_PAGE = {"responses": {"200": {"description": "OK", "content": {"text/html": {"schema": {"type": "string"}}}}}}
_KEYS: list[dict[str, Any]] = [{"bearer": []}, {"header": []}]


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


def described(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """These routes, and those at which all of them are described: for programs, and for people."""

    async def show(service: Service, call: Call) -> Reply:
        return Reply(200, written())

    async def read(service: Service, call: Call) -> Reply:
        return Reply(200, shown(), reference.HTML, reference.headers())

    @cache
    def written() -> bytes:
        return orjson.dumps(document(everything))

    @cache
    def shown() -> bytes:
        return reference.page(document(everything))

    everything = (
        *routes,
        Route("GET", "/openapi.json", show, None, "This document."),
        Route("GET", "/docs", read, None, "This document as a page to read.", about=_PAGE),
    )
    return everything


@cache
def _schemas() -> dict[str, Any]:
    """Of everything that requests are made of, and of replies."""
    kinds: list[type] = [*dict.fromkeys((Error, *_REPLIES)), *(row.request for row in OPERATIONS.values())]
    _, found = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    for schema in found.values():
        fields = schema.get("properties", {})
        if "filter" in fields:
            fields["filter"] = _FILTER
        if "include" in fields:
            del fields["include"]["uniqueItems"]
        for name in _NOT_EMPTY & fields.keys():
            fields[name] = _not_empty(fields[name])
        if "results" in fields:
            fields["results"]["items"] = {"anyOf": [fields["results"]["items"], _reference(Error)]}
    return found


def _not_empty(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a text, or of a list of texts, that may not be empty."""
    if schema.get("type") == "array":
        return schema | {"items": _not_empty(schema["items"])}
    if "anyOf" in schema:
        return schema | {"anyOf": [_not_empty(one) for one in schema["anyOf"]]}
    return schema | {"minLength": 1} if schema.get("type") == "string" else schema


def _described(route: Route) -> dict[str, Any]:
    parameters = [_in_path(name) for name in _PARAMETER.findall(route.path)]
    found: dict[str, Any] = {"summary": route.summary, "operationId": _name(route)}
    if route.scope is not None:
        found["description"] = f"Needs a key with scope {route.scope}, where keys are needed."
    if isinstance(route.endpoint, Ask):
        fields = _fields(route.endpoint, {one["name"] for one in parameters})
        has_body = route.method not in _WITHOUT_BODY
        if not has_body or takes_files(fields):
            parameters += in_query(fields, is_all=not has_body)
        if has_body and fields["properties"]:
            patch = (MERGE_PATCH,) if isinstance(route.endpoint, PatchItem) else ()
            found["requestBody"] = {"required": _are_needed(fields), "content": bodies(fields, JSON, *patch)}
    found["responses"] = _responses(route) | route.about.get("responses", {})
    if parameters := [*parameters, *route.about.get("parameters", ())]:
        found["parameters"] = parameters
    found["responses"]["default"] = {"description": "Error", "content": {JSON: {"schema": _reference(Error)}}}
    return {**route.about, **found} | ({"security": []} if route.scope is None else {})


def _name(route: Route) -> str:
    """Of the method and the path, as what is generated from the document calls it."""
    words = (one.strip("{}") for one in route.path.strip("/").split("/"))
    return "_".join((route.method.lower(), *(re.sub(r"\W", "_", word) for word in words)))


def _fields(ask: Ask, in_path: set[str]) -> dict[str, Any]:
    """The schema of an operation's fields, without those that the path says."""
    schema, ways = _all_fields(OPERATIONS[ask.operation].request, single=ask.single)
    said = {*in_path, *ask.said} | ({"filter"} if ask.single else set())
    decided = said & {name for way in ways for name in way}
    kept = [way - said for way in ways if decided <= way]
    gone = said | {name for way in ways for name in way} - {name for way in kept for name in way}
    gone |= {plural for plural, singular in SINGULAR.items() if singular in said}
    schema["properties"] = {name: one for name, one in schema["properties"].items() if name not in gone}
    if len(kept) == 1:
        return schema | {"required": sorted(kept[0])}
    return schema | {"required": [], "anyOf": [{"required": sorted(way)} for way in kept]}


def _all_fields(request: type[Request], *, single: bool) -> tuple[dict[str, Any], list[set[str]]]:
    """The schema of what an operation takes, and each set of fields that is enough."""
    schema = copy.deepcopy(_schemas()[request.__name__])
    fields: dict[str, Any] = schema["properties"]
    del fields["op"]
    ways = [{*schema["required"]} - {"op"}]
    if request is UpsertRequest:  # one item's fields may stand in place of a list
        fields |= _schemas()[NewItem.__name__]["properties"]
        ways += [{"id", "image"}]
    if request is UpdateRequest and single:
        fields |= _schemas()[ItemChange.__name__]["properties"]
        ways += [{"id"}]
    for plural, singular in SINGULAR.items():
        if plural in fields:
            fields[singular] = fields[plural]["items"]
            ways += [way - {plural} | {singular} for way in ways if plural in way]
    return schema, ways


def _are_needed(fields: Mapping[str, Any]) -> bool:
    return bool(fields["required"] or fields.get("anyOf"))


def _in_path(name: str) -> dict[str, Any]:
    schema = _IN_PATH.get(name, {"type": "string", "minLength": 1})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _responses(route: Route) -> dict[str, Any]:
    ask = route.endpoint
    if isinstance(ask, Ask) and not route.replies:
        kinds: tuple[type, ...] = ((OF_ONE if ask.single else OF_OPERATION)[ask.operation],)
    else:
        kinds = route.replies
    schema = {"anyOf": [*map(_reference, kinds)]} if len(kinds) > 1 else _reference(kinds[0]) if kinds else {}
    types = ((PICTURE,) if ask.picture else OPERATIONS[ask.operation].replies) if isinstance(ask, Ask) else (JSON,)
    return {"200": {"description": "OK", "content": {one: {"schema": schema} if one == JSON else {} for one in types}}}


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(name=kind.__name__)}
