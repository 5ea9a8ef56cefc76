"""The Open Inference Protocol against what its specification requires (kserve/open-inference-protocol, REST)."""

import base64
import json
import struct
from typing import Any

import jsonschema
import numpy as np
import pytest

from core.images.decode import ImageError, decode
from serving.gateway.dialects.inference_protocol import HEADER_LENGTH, ROUTES
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply
from tests.serving.gateway.dialects.asking import MODEL, Begun, answered, begun, embeddings, refused, translated

PIXELS = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
FILES = (b"one file", b"another, longer file")
RESULTS = [{"embedding": row, "logits": other} for row, other in zip(embeddings(2), embeddings(2, dim=2), strict=True)]
ANSWER = Answer("digits/7", RESULTS)


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


TEXT, WHOLE, FREE = {"type": "string"}, {"type": "integer"}, {"type": "object"}
_TENSOR = {"name": TEXT, "datatype": TEXT, "shape": _list(WHOLE)}
_TENSORS = _list(_object(_TENSOR, *_TENSOR))
_OUTPUT = _TENSOR | {"parameters": FREE, "data": _list({"type": "number"})}
_MODEL = {"name": TEXT, "platform": TEXT, "versions": _list(TEXT), "inputs": _TENSORS, "outputs": _TENSORS}
_REPLY = {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "parameters": FREE}
SPECIFIED = {
    "server": _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)}, "name", "version", "extensions"),
    "model": _object(_MODEL, "name", "platform"),
    "inference": _object(_REPLY | {"outputs": _list(_object(_OUTPUT, *_TENSOR, "data"))}, *("model_name", "outputs")),
    "error": _object({"error": TEXT}, "error"),
}


def got(path: str, *, model: Any = MODEL) -> Reply:
    _, reply = begun(ROUTES, "GET", path, model=model)
    assert isinstance(reply, Reply)
    return reply


def specified(reply: Reply, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(reply.body)
    jsonschema.validate(content, SPECIFIED[name])
    return content


def infer(*inputs: dict[str, Any], path: str = "/v2/models/digits/infer", behind: bytes = b"", **more: Any) -> Begun:
    content = json.dumps({"inputs": inputs} | more).encode()
    headers = {HEADER_LENGTH: str(len(content))} if behind else {}
    return begun(ROUTES, "POST", path, content + behind, headers=headers)


def pixels(**changed: Any) -> dict[str, Any]:
    return {"name": "images", "datatype": "UINT8", "shape": [2, 4, 4, 3], "data": PIXELS.ravel().tolist()} | changed


def files(**changed: Any) -> dict[str, Any]:
    texts = [base64.b64encode(file).decode() for file in FILES]
    return {"name": "images", "datatype": "BYTES", "shape": [2], "data": texts} | changed


def binary(given: dict[str, Any], size: int) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "data"} | {"parameters": {"binary_data_size": size}}


def decoded(found: Begun) -> Any:
    """The pixels that the engine's decoder makes of the images."""
    return np.stack([decode(file, 4) for file in translated(found).request.files])


def test_the_server_and_the_model_are_described_as_specified() -> None:
    assert "binary_tensor_data" in specified(got("/v2"), "server")["extensions"]
    for path in ("/v2/models/digits", "/v2/models/simclr", "/v2/models/digits/versions/7"):
        model = specified(got(path), "model")
        assert (model["name"], model["versions"], model["platform"]) == ("digits", ["7"], "onnxruntime_onnx")
        assert model["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 4, 4, 3]}]
        assert {one["name"]: one["shape"] for one in model["outputs"]} == {"embedding": [-1, 5], "logits": [-1, 2]}


def test_health_follows_the_workers() -> None:
    ready = ["/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/7/ready"]
    assert [got(path).status for path in ready] == [200] * 3
    assert [got(path, model=None).status for path in ready] == [503] * 3
    assert got("/v2/health/live", model=None).status == 200


@pytest.mark.parametrize(
    "path",
    ["/v2/models/other", "/v2/models/digits/versions/8", "/v2/models/other/ready", "/v2/models/digits/versions/x"],
)
def test_what_is_not_served_is_a_404(path: str) -> None:
    assert got(path).status == 404
    specified(got(path), "error")


@pytest.mark.parametrize("data", [PIXELS.ravel().tolist(), PIXELS.tolist()], ids=["flat", "nested"])
def test_pixels_in_json_arrive_as_they_are(data: Any) -> None:
    np.testing.assert_array_equal(decoded(infer(pixels(data=data))), PIXELS)


def test_binary_pixels_arrive_as_they_are() -> None:
    found = infer(binary(pixels(), PIXELS.nbytes), behind=PIXELS.tobytes())
    np.testing.assert_array_equal(decoded(found), PIXELS)


def test_image_files_arrive_as_they_are() -> None:
    behind = b"".join(struct.pack("<I", len(file)) + file for file in FILES)
    for found in (
        infer(files()),
        infer(files(shape=[2, 1], data=[[text] for text in files()["data"]])),
        infer(files(data=[f"data:image/png;base64,{text}" for text in files()["data"]])),
        infer(binary(files(), len(behind)), behind=behind),
    ):
        assert translated(found).request == EmbedRequest(FILES, include=frozenset({"logits"}))


def test_the_reply_is_as_specified_and_exact() -> None:
    found = infer(pixels(), id="42", parameters={"unknown": 1})
    content = specified(answered(found, ANSWER), "inference")
    assert (content["model_name"], content["model_version"], content["id"]) == ("digits", "7", "42")
    for one, name in zip(content["outputs"], ("embedding", "logits"), strict=True):
        expected = np.stack([result[name] for result in RESULTS])
        assert (one["name"], one["datatype"], one["shape"]) == (name, "FP32", [*expected.shape])
        np.testing.assert_array_equal(np.array(one["data"], np.float32).reshape(expected.shape), expected)


def test_only_wanted_outputs_come_and_those_asked_for_so_as_bytes() -> None:
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "embedding"}]
    reply = answered(infer(pixels(), outputs=outputs), ANSWER)
    header = int(reply.headers[HEADER_LENGTH])
    content = json.loads(reply.body[:header])
    logits, embedding = content["outputs"]
    assert reply.content_type == "application/octet-stream"
    assert logits["parameters"]["binary_data_size"] == len(reply.body) - header
    expected = np.stack([result["logits"] for result in RESULTS])
    np.testing.assert_array_equal(np.frombuffer(reply.body[header:], "<f4").reshape(logits["shape"]), expected)
    assert "data" in embedding
    assert "id" not in content


def test_all_outputs_come_as_bytes_if_the_request_says_so() -> None:
    reply = answered(infer(pixels(), parameters={"binary_data_output": True}), ANSWER)
    header = int(reply.headers[HEADER_LENGTH])
    sizes = [one["parameters"]["binary_data_size"] for one in json.loads(reply.body[:header])["outputs"]]
    assert sizes == [2 * 5 * 4, 2 * 2 * 4]
    found = np.frombuffer(reply.body[header : header + sizes[0]], "<f4").reshape(2, 5)
    np.testing.assert_array_equal(found, np.stack([result["embedding"] for result in RESULTS]))


def test_logits_are_asked_for_only_where_they_are_wanted() -> None:
    found = infer(pixels(), outputs=[{"name": "embedding"}])
    assert translated(found).request.included == frozenset()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (infer(), "there must be one, images"),
        (infer(pixels(name="x")), "there must be one, images"),
        (infer(pixels(datatype="FP32")), "UINT8 or BYTES"),
        (infer(pixels(shape=[2, 3, 4, 4])), "[-1, 4, 4, 3]"),
        (infer(pixels(shape=[])), "[-1, 4, 4, 3]"),
        (infer(pixels(shape=[0, 4, 4, 3], data=[])), "from 1 to 64"),
        (infer(pixels(data=PIXELS.ravel().tolist()[1:])), "95 elements"),
        (infer(pixels(data=[300] * 96)), "255"),
        (infer(pixels(data=[0.5] * 96)), "int"),
        (infer(pixels(data=["1"] * 96)), "int"),
        (infer(pixels(data=[[1] * 95, [1]])), "unevenly"),
        (infer(pixels(data=[[1] * 48, [1] * 48])), "nested as [2, 48]"),
        (infer(pixels(data=7)), "1 elements"),
        (infer(binary(pixels(), 96)), "0 bytes are behind"),
        (infer(binary(pixels(), 95), behind=bytes(95)), "has 95 bytes"),
        (infer(pixels(), behind=b"x"), "no binary_data_size"),
        (infer(binary(files(), 7), behind=b"\x02\0\0\0abc"), "ends within the element that begins at byte 6"),
        (infer(binary(files(), 5), behind=b"\x01\0\0\0a"), "has 1 elements"),
        (infer({name: value for name, value in files().items() if name != "data"}), "neither data"),
        (infer(files(data=["a cat!", "b"])), "image 0 is not valid base64"),
        (infer(files(data=["http://example.org"] * 2)), "an address, and none is fetched"),
        (infer(files(data=[])), "data is empty"),
        (infer(pixels(), outputs=[{"name": "label"}]), "it has embedding, logits"),
        (begun(ROUTES, "POST", "/v2/models/digits/infer", b"{"), "can't be read"),
        (begun(ROUTES, "POST", "/v2/models/digits/infer", b"{}", headers={HEADER_LENGTH: "3"}), "2 bytes"),
        (begun(ROUTES, "POST", "/v2/models/digits/infer", b"{}", headers={HEADER_LENGTH: "-1"}), "must be a number"),
    ],
)
def test_what_is_wrong_is_a_400_in_the_specified_form(found: Begun, words: str) -> None:
    status, content = refused(found)
    assert status == 400
    jsonschema.validate(content, SPECIFIED["error"])
    assert words in content["error"]


def test_too_many_images_are_a_413() -> None:
    assert refused(infer(pixels(shape=[65, 4, 4, 3])))[0] == 413


def test_one_image_that_fails_fails_the_request() -> None:
    reply = answered(infer(files()), Answer("digits/7", [RESULTS[0], ImageError("the PNG image is broken")]))
    assert reply.status == 422
    assert specified(reply, "error")["error"] == "image 1: the PNG image is broken"
    assert answered(infer(files()), RequestError("full", 503)).status == 503


def test_a_version_is_not_answered_by_the_next_one() -> None:
    later = Answer("digits/8", RESULTS)
    assert answered(infer(pixels(), path="/v2/models/digits/versions/7/infer"), later).status == 404
    assert json.loads(answered(infer(pixels()), later).body)["model_version"] == "8"
