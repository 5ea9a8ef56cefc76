import json
import re

import jsonschema
import pytest

from serving.gateway.dialects import inference_protocol, openai, weaviate
from serving.gateway.dialects.route import DialectRoute
from serving.gateway.dialects.schemas import paths_and_schemas
from serving.protocol.messages import Answer
from tests.serving.gateway.dialects.asking import MODEL, answered, embeddings
from tests.serving.gateway.dialects.test_inference_protocol import ANSWER, infer, pixels
from tests.serving.gateway.dialects.test_openai import asked

ROUTES = (*openai.ROUTES, *inference_protocol.ROUTES, *weaviate.ROUTES)
PATHS, SCHEMAS = paths_and_schemas(ROUTES)


def test_every_route_is_there_and_no_two_have_one_name() -> None:
    found = {(method.upper(), path) for path, methods in PATHS.items() for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES}
    names = [one["operationId"] for methods in PATHS.values() for one in methods.values()]
    assert len(names) == len({*names}) == len(ROUTES)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    text = json.dumps([PATHS, SCHEMAS])
    assert {*re.findall(r"#/components/schemas/(\w+)", text)} <= SCHEMAS.keys()
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_parameters_of_the_path_are_declared(route: DialectRoute) -> None:
    declared = [one["name"] for one in PATHS[route.path][route.method.lower()].get("parameters", [])]
    assert declared == re.findall(r"\{(\w+)\}", route.path)


def test_replies_are_as_their_schemas_say() -> None:
    check = {"components": {"schemas": SCHEMAS}}
    embedded = answered(asked(), Answer(MODEL.title, [{"embedding": embeddings(1)[0]}]))
    for name, reply in (("OpenAIEmbeddings", embedded), ("InferenceReply", answered(infer(pixels()), ANSWER))):
        jsonschema.validate(json.loads(reply.body), check | {"$ref": f"#/components/schemas/{name}"})
