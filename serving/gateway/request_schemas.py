"""Where a request's fields may stand, as OpenAPI says it: in the query, in JSON, in a form, and a file as the body."""

from collections.abc import Mapping
from typing import Any

from serving.protocol.media_types import JSON, RAW
from serving.protocol.validation import NO_OPTIONS, SINGULAR

FORM = "multipart/form-data"
IMAGE = "image/*"
_FILES = ("image", "images")
MOST_IN_QUERY = 200  # ids, so that other fields find room among those that a request may have (MAX_FIELDS)
_FILE = {"type": "string", "format": "binary"}
_LISTS = [SINGULAR[name] for name in ("ids", "keys")]  # may be given several times
_SIMPLE = ("string", "integer", "number", "boolean")


def in_query(fields: Mapping[str, Any], *, is_all: bool) -> list[dict[str, Any]]:
    """The fields as parameters of the query; those that are needed are so only if nothing else may have them."""
    ways = [{*way["required"]} for way in fields.get("anyOf", [fields])]
    needed = {name for name in fields["properties"] if is_all and all(_has(way, name) for way in ways)}
    return [
        _parameter(name, schema, most=_most(name, fields)) | ({"required": True} if name in needed else {})
        for name, schema in fields["properties"].items()
        if name not in NO_OPTIONS and name not in SINGULAR and name != "items"
    ]


def bodies(fields: Mapping[str, Any], *types: str) -> dict[str, Any]:
    """The fields as JSON of these `types` and as a form; an image may also be the body itself."""
    found: dict[str, Any] = {one: {"schema": fields} for one in types}
    form = {name: schema for name, schema in fields["properties"].items() if name not in NO_OPTIONS}
    if takes_files(fields):
        form["image"] = {"type": "array", "items": _FILE}
    found[FORM] = {"schema": {"type": "object", "properties": form}, "encoding": _encoding(form)}
    return found | ({IMAGE: {}, RAW: {}} if takes_files(fields) else {})


def takes_files(fields: Mapping[str, Any]) -> bool:
    """Whether an image is among the fields."""
    return any(name in fields["properties"] for name in _FILES)


def _has(way: set[str], name: str) -> bool:
    return name in way or any(one == name and plural in way for plural, one in SINGULAR.items())


def _most(name: str, fields: Mapping[str, Any]) -> int:
    """How many values of a name a query may have."""
    plural = next((many for many, one in SINGULAR.items() if one == name), name)
    bound: int = fields["properties"].get(plural, {}).get("maxItems", MOST_IN_QUERY)
    return min(MOST_IN_QUERY, bound)


def _parameter(name: str, schema: Mapping[str, Any], *, most: int) -> dict[str, Any]:
    """A field as the query has it: several words with commas, and JSON for what is no single value."""
    found: dict[str, Any] = {"name": name, "in": "query"}
    if name in _LISTS:
        return found | {
            "style": "form",
            "explode": True,
            "schema": {"type": "array", "items": schema, "maxItems": most},
        }
    if name == "include":
        return found | {"style": "form", "explode": False, "schema": schema}
    if _is_simple(schema):
        return found | {"schema": schema}
    return found | {"content": {JSON: {"schema": schema}}}


def _is_simple(schema: Mapping[str, Any]) -> bool:
    kinds = [one.get("type") for one in schema.get("anyOf", [schema])]
    return "enum" in schema or all(kind in (*_SIMPLE, "null") for kind in kinds)


def _encoding(form: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a form that are JSON."""
    return {
        name: {"contentType": JSON}
        for name, schema in form.items()
        if name not in ("image", "include") and not _is_simple(schema)
    }
