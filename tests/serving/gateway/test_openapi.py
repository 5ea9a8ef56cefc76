import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from serving.gateway.addresses import ROUTES
from serving.gateway.openapi import document
from serving.protocol.operations import OPERATIONS

DOCUMENT = json.loads(json.dumps(document(ROUTES)))
ITEMS = "/v1/collections/{collection}/items"


def fields(path: str, method: str) -> tuple[set[str], Any]:
    """The fields of a route's JSON, and which of them are needed."""
    schema = DOCUMENT["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    return {*schema["properties"]}, schema.get("anyOf", schema["required"])


def test_it_is_a_valid_document() -> None:
    validate(DOCUMENT)


def test_every_listed_route_is_in_it_and_no_other() -> None:
    found = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES if route.listed}


def test_only_what_is_public_asks_for_no_key() -> None:
    without = {
        (method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method, one in methods.items()
        if one.get("security") == []
    }
    assert without == {(route.method, route.path) for route in ROUTES if route.listed and route.scope is None}


@pytest.mark.parametrize(
    ("path", "method", "takes", "needs"),
    [
        *(
            (path, "post", {"image", "images", "include"}, [{"required": ["images"]}, {"required": ["image"]}])
            for path in ("/v1/embed", "/v1/classify")
        ),
        (ITEMS, "post", {"items", "id", "image", "label"}, [{"required": ["items"]}, {"required": ["id", "image"]}]),
        (ITEMS, "patch", {"items"}, ["items"]),
        (f"{ITEMS}/{{id}}", "patch", {"label", "metadata"}, []),
        (f"{ITEMS}/{{id}}", "put", {"image", "label", "metadata"}, ["image"]),
        ("/v1/search", "post", {"id", "ids", "vector", "image", "positives", "k", "filter"}, []),
    ],
)
def test_a_route_takes_what_its_path_does_not_say(path: str, method: str, takes: set[str], needs: Any) -> None:
    found, needed = fields(path, method)
    assert takes <= found
    assert needed == needs
    assert found.isdisjoint({"op", "collection"} | ({"id", "items"} if "{id}" in path else set()))


def test_a_get_has_its_fields_in_the_query() -> None:
    parameters = {one["name"]: one for one in DOCUMENT["paths"][ITEMS]["get"]["parameters"]}
    assert parameters.keys() == {"collection", "id", *OPERATIONS["list"].request.__struct_fields__}
    assert parameters["collection"]["in"] == "path"
    assert parameters["limit"]["schema"]["maximum"] == 1000
