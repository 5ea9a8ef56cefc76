"""The dialects over HTTP, of the real server: by OpenAI's own client, and by httpx as KServe's and Weaviate's ask."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from serving.engine import Engine
from serving.inference.runtime import Outputs
from serving.torchserve.launch import Server
from tests.conftest import IMAGE_SIZE, Chain

HEADER_LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as connected:
        yield connected


@pytest.fixture(scope="module")
def texts(chain: Chain) -> list[str]:
    return [base64.b64encode(file).decode() for file in chain.test_files()[:5]]


@pytest.fixture(scope="module")
def expected(chain: Chain, engine: Engine) -> NDArray[np.float32]:
    found = engine.embed_files(chain.test_files()[:5])
    return np.stack([one.embedding for one in found if isinstance(one, Outputs)])


def _numbers(embedding: Any) -> Any:
    """What was asked for expressly as base64, the client hands on as it came."""
    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_openais_client_embeds_images(
    client: openai.OpenAI, texts: list[str], expected: NDArray[np.float32], encoding: str | None
) -> None:
    options = {} if encoding is None else {"encoding_format": encoding}
    reply = client.embeddings.create(model="chain", input=texts, **options)  # type: ignore[arg-type]
    found = [_numbers(one.embedding) for one in reply.data]
    np.testing.assert_allclose(np.array(found), expected, atol=1e-4)
    assert (reply.model, reply.usage.total_tokens) == ("chain/1", 0)
    assert [one.index for one in reply.data] == [*range(5)]


def test_openais_client_embeds_one_image_as_infinitys_do(
    client: openai.OpenAI, texts: list[str], expected: NDArray[np.float32]
) -> None:
    uri = f"data:image/jpeg;base64,{texts[0]}"
    reply = client.embeddings.create(model="default", input=uri, extra_body={"modality": "image"})
    np.testing.assert_allclose(reply.data[0].embedding, expected[0], atol=1e-4)


def test_openais_client_finds_the_model(client: openai.OpenAI) -> None:
    (one,) = client.models.list().data
    assert one.id == "chain/1"
    for name in ("chain/1", "chain", "simclr", "default"):
        assert client.models.retrieve(name) == one


def test_openais_client_raises_its_own_errors(client: openai.OpenAI, texts: list[str]) -> None:
    with pytest.raises(openai.NotFoundError, match="model is 'gpt'") as missing:
        client.embeddings.create(model="gpt", input=texts)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")
    with pytest.raises(openai.BadRequestError, match="an address, and none is fetched"):
        client.embeddings.create(model="chain", input=["https://example.org/cat.jpg"])
    with pytest.raises(openai.BadRequestError, match="SimCLR knows no words"):
        client.embeddings.create(model="chain", input=texts, extra_body={"modality": "text"})
    with pytest.raises(openai.UnprocessableEntityError, match="input 1: the JPEG image is broken"):
        client.embeddings.create(model="chain", input=[texts[0], texts[1][:200]])


def test_an_open_inference_client_gets_what_the_encoder_gives(http: httpx.Client, engine: Engine) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    size = {"binary_data_size": images.nbytes}
    tensor = {"name": "images", "datatype": "UINT8", "shape": images.shape, "parameters": size}
    head = json.dumps({"id": "7", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    reply = http.post("/v2/models/chain/versions/1/infer", content=head + images.tobytes(), headers=headers)
    assert reply.status_code == 200, reply.text
    at, found = int(reply.headers[HEADER_LENGTH]), {}
    content = json.loads(reply.content[:at])
    for one in content["outputs"]:
        found[one["name"]] = np.frombuffer(reply.content, "<f4", int(np.prod(one["shape"])), at).reshape(one["shape"])
        at += one["parameters"]["binary_data_size"]
    assert (content["model_name"], content["model_version"], content["id"]) == ("chain", "1", "7")
    outputs = engine.embed(images)
    np.testing.assert_allclose(found["embedding"], outputs.embedding, atol=1e-5)
    assert outputs.logits is not None
    np.testing.assert_allclose(found["logits"], outputs.logits, atol=1e-3)


def test_an_open_inference_client_sends_files_in_json(
    http: httpx.Client, texts: list[str], expected: NDArray[np.float32]
) -> None:
    tensor = {"name": "images", "datatype": "BYTES", "shape": [5], "data": texts}
    body = {"inputs": [tensor], "outputs": [{"name": "embedding"}]}
    (output,) = http.post("/v2/models/chain/infer", json=body).json()["outputs"]
    np.testing.assert_allclose(np.array(output["data"]).reshape(output["shape"]), expected, atol=1e-4)


def test_the_open_inference_metadata_lead_to_the_model(http: httpx.Client) -> None:
    assert http.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert http.get("/v2/models/chain").json()["versions"] == ["1"]
    assert http.get("/v2/models/chain/versions/1/ready").json() == {"name": "chain", "ready": True}
    missing = http.get("/v2/models/other")
    assert (missing.status_code, [*missing.json()]) == (404, ["error"])


@pytest.mark.parametrize("path", ["/vectors", "/vectors/"])
def test_weaviate_gets_a_vector_for_json_without_a_content_type(
    http: httpx.Client, texts: list[str], expected: NDArray[np.float32], path: str
) -> None:
    reply = http.post(path, content=json.dumps({"id": "6f1a", "image": texts[0]}))
    assert "content-type" not in reply.request.headers
    content = reply.json()
    assert (reply.status_code, content["id"], content["dim"]) == (200, "6f1a", expected.shape[1])
    np.testing.assert_allclose(content["vector"], expected[0], atol=1e-4)


def test_weaviate_reads_what_is_wrong_as_a_text(http: httpx.Client) -> None:
    reply = http.post("/vectors", content=b'{"id": "a", "image": "a cat!"}')
    assert reply.status_code == 400
    assert isinstance(reply.json()["error"], str)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/.well-known/live", 204), ("/.well-known/ready", 204), ("/v2/health/live", 200)),
        *(("/v2/health/ready", 200), ("/v2/models/chain/ready", 200)),
    ],
)
def test_health_is_told_within_half_a_second(http: httpx.Client, path: str, status: int) -> None:
    http.get("/.well-known/live")  # connected
    begun = time.monotonic()
    reply = http.get(path)
    assert (reply.status_code, time.monotonic() - begun < 0.5) == (status, True)


def test_what_the_gateway_itself_refuses_is_written_as_the_dialect_does(http: httpx.Client) -> None:
    replies = [
        http.post(path, content=b"{}", headers={"Content-Encoding": "br"})
        for path in ("/v1/embeddings", "/v2/models/chain/infer", "/vectors")
    ]
    assert [reply.status_code for reply in replies] == [415] * 3
    errors = [reply.json()["error"] for reply in replies]
    assert errors[0]["type"] == "invalid_request_error"
    assert all("Content-Encoding is 'br'" in text for text in (errors[0]["message"], *errors[1:]))


def test_the_document_of_all_routes_is_served(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert paths.keys() >= {"/v1/embeddings", "/v2/models/{model}/infer", "/vectors", "/v1/search", "/openapi.json"}
