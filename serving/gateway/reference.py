"""The page at `GET /docs`: what `GET /openapi.json` says, for people to read.

It is plain HTML that needs no script, no other file and no internet, so the browser is told to allow none.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import orjson

_TEMPLATE = Path(__file__).with_name("reference.html.jinja")
_STYLE = Path(__file__).with_name("reference.css")
HTML = "text/html; charset=utf-8"


def page(document: Mapping[str, Any]) -> bytes:
    """The page of an OpenAPI document."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(
        title=document["info"]["title"],
        version=document["info"]["version"],
        style=_STYLE.read_text(),
        operations=[*_operations(document)],
        schemas={name: _written(one) for name, one in sorted(document["components"]["schemas"].items())},
    ).encode()


def headers() -> dict[str, str]:
    """What a browser is to allow the page: its own style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.read_bytes()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            yield {
                "method": method.upper(),
                "path": path,
                "name": one["operationId"],
                "summary": one.get("summary", ""),
                "description": one.get("description", ""),
                "parameters": [_parameter(parameter) for parameter in one.get("parameters", ())],
                "bodies": _contents(one.get("requestBody", {})),
                "replies": [
                    (status, reply["description"], _contents(reply)) for status, reply in one["responses"].items()
                ],
            }


def _parameter(one: Mapping[str, Any]) -> dict[str, Any]:
    schema = one["schema"] if "schema" in one else next(iter(one["content"].values()))["schema"]
    how = "in JSON" if "content" in one else ""
    return {"name": one["name"], "where": one["in"], "needed": one.get("required", False), "how": how} | {
        "schema": orjson.dumps(schema).decode()
    }


def _contents(holder: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """By media type: the name of the schema, if it is one of those that have a name, else the schema itself."""
    found = []
    for kind, content in holder.get("content", {}).items():
        schema = content.get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        found.append((kind, name, "" if name or not schema else _written(schema)))
    return found


def _written(schema: Any) -> str:
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
