import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from core.images.decode import ImageError
from serving.gateway.dialects.openai import (
    ROUTES,
    OpenAIEmbeddings,
    OpenAIError,
    OpenAIModel,
    OpenAIModels,
)
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply
from tests.serving.gateway.dialects.asking import MODEL, Begun, answered, begun, embeddings, refused, translated

FILE = b"\x89PNG any bytes"
TEXT = base64.b64encode(FILE).decode()


def asked(**fields: Any) -> Begun:
    return begun(ROUTES, "POST", "/v1/embeddings", {"model": "digits", "input": TEXT} | fields)


def error_of(reply: Reply) -> dict[str, Any]:
    msgspec.json.decode(reply.body, type=OpenAIError)
    found: dict[str, Any] = json.loads(reply.body)["error"]
    return found


@pytest.mark.parametrize("model", ["digits/7", "digits", "simclr", "default"])
@pytest.mark.parametrize("text", [TEXT, f"data:image/png;base64,{TEXT}"])
def test_an_image_comes_as_base64_or_data_uri_for_any_name_of_the_model(text: str, model: str) -> None:
    assert translated(asked(input=text, model=model)).request == EmbedRequest((FILE,))


def test_options_that_ask_for_what_is_done_anyway_are_taken() -> None:
    options = {"modality": "image", "dimensions": 5, "user": "someone", "encoding_format": "float"}
    assert translated(asked(input=[TEXT, TEXT], **options)).request == EmbedRequest((FILE, FILE))


def test_numbers_come_back_as_they_are() -> None:
    vectors = embeddings(3)
    reply = answered(asked(input=[TEXT] * 3), Answer("digits/7", [{"embedding": row} for row in vectors]))
    assert (reply.status, reply.content_type) == (200, "application/json")
    found = msgspec.json.decode(reply.body, type=OpenAIEmbeddings)
    assert (found.model, [one.index for one in found.data]) == ("digits/7", [0, 1, 2])
    parsed = json.loads(reply.body)
    assert parsed["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    np.testing.assert_array_equal(np.array([one["embedding"] for one in parsed["data"]], np.float32), vectors)


def test_base64_is_little_endian_float32() -> None:
    (vector,) = embeddings(1)
    reply = answered(asked(encoding_format="base64"), Answer("digits/7", [{"embedding": vector}]))
    (one,) = json.loads(reply.body)["data"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(one["embedding"]), "<f4"), vector)


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": "https://example.org/cat.png"}, "input", "an address, and none is fetched"),
        ({"input": [TEXT, "FILE:///etc/passwd"]}, "input", "input 1 is 'FILE"),
        ({"input": [TEXT, "a cat!"]}, "input", "input 1 is not valid base64"),
        ({"input": []}, "input", "length"),
        ({"input": [TEXT] * 65}, "input", "64"),
        ({"input": [[1, 2]]}, "input", "str"),
        ({"input": None}, "input", "null"),
        ({"modality": "text"}, "modality", "SimCLR knows no words"),
        ({"modality": "smell"}, "modality", "smell"),
        ({"dimensions": 4}, "dimensions", "this release has 5"),
        ({"encoding_format": "int8"}, "encoding_format", "int8"),
        ({"temperature": 1}, "temperature", "temperature"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_the_field(fields: dict[str, Any], param: str, words: str) -> None:
    status, content = refused(asked(**fields))
    assert (status, content["error"]["type"], content["error"]["param"]) == (400, "invalid_request_error", param)
    assert words in content["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"input": "AAAA"}'])
def test_what_is_no_request_is_a_400(body: bytes) -> None:
    status, content = refused(begun(ROUTES, "POST", "/v1/embeddings", body))
    assert status == 400
    assert content["error"]["message"]


def test_another_model_is_a_404() -> None:
    for found in (asked(model="text-embedding-3-small"), begun(ROUTES, "GET", "/v1/models/gpt")):
        status, content = refused(found)
        assert (status, content["error"]["param"], content["error"]["code"]) == (404, "model", "model_not_found")
        assert "digits/7" in content["error"]["message"]


def test_one_image_that_fails_fails_the_request_and_is_named() -> None:
    results = [{"embedding": embeddings(1)[0]}, ImageError("the PNG image is broken")]
    reply = answered(asked(input=[TEXT] * 2), Answer("digits/7", results))
    assert reply.status == 422
    assert error_of(reply)["message"] == "input 1: the PNG image is broken"
    assert error_of(reply)["param"] == "input"


def test_an_overload_says_when_to_come_again() -> None:
    reply = answered(asked(), RequestError("the queue is full", 503, retry_after=2))
    assert (reply.status, reply.headers["retry-after"]) == (503, "2")
    assert error_of(reply)["type"] == "server_error"


def test_a_release_named_by_its_title_is_not_answered_by_the_next_one() -> None:
    later = Answer("digits/8", [{"embedding": embeddings(1)[0]}])
    assert answered(asked(model="digits/7"), later).status == 404
    assert json.loads(answered(asked(model="digits"), later).body)["model"] == "digits/8"


def test_the_models_are_the_release() -> None:
    _, listed = begun(ROUTES, "GET", "/v1/models")
    _, shown = begun(ROUTES, "GET", "/v1/models/digits/7")
    assert isinstance(listed, Reply)
    assert isinstance(shown, Reply)
    (one,) = msgspec.json.decode(listed.body, type=OpenAIModels).data
    assert one == msgspec.json.decode(shown.body, type=OpenAIModel)
    assert (one.id, one.created) == (MODEL.title, MODEL.created)


def test_without_a_worker_it_is_unavailable() -> None:
    for path in ("/v1/models", "/v1/models/digits"):
        assert refused(begun(ROUTES, "GET", path, model=None))[0] == 503
    assert refused(begun(ROUTES, "POST", "/v1/embeddings", {"model": "x", "input": TEXT}, model=None))[0] == 503
