"""The dialects with the engine: what they reply is what it embeds."""

import base64
import json

import numpy as np
import pytest

from serving.engine import Engine
from serving.gateway.dialects import inference_protocol, openai, weaviate
from serving.gateway.dialects.inference_protocol import HEADER_LENGTH
from serving.gateway.dialects.model import ServedModel
from tests.conftest import IMAGE_SIZE, Chain
from tests.serving.gateway.dialects.asking import asked_of, begun


@pytest.fixture(scope="module")
def model(engine: Engine) -> ServedModel:
    return ServedModel.of_description(engine.describe())


def test_pixels_get_the_embeddings_and_logits_that_the_encoder_gives_them(engine: Engine, model: ServedModel) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    size = {"binary_data_size": images.nbytes}
    given = {"name": "images", "datatype": "UINT8", "shape": [*images.shape], "parameters": size}
    content = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    found = begun(
        *(inference_protocol.ROUTES, "POST", f"/v2/models/{model.name}/infer", content + images.tobytes()),
        model=model,
        headers={HEADER_LENGTH: str(len(content))},
    )
    reply = asked_of(engine, found)
    header = int(reply.headers[HEADER_LENGTH])
    outputs = {one["name"]: one for one in json.loads(reply.body[:header])["outputs"]}
    end = header + outputs["embedding"]["parameters"]["binary_data_size"]
    expected = engine.embed(images)
    embedding = np.frombuffer(reply.body[header:end], "<f4").reshape(outputs["embedding"]["shape"])
    logits = np.frombuffer(reply.body[end:], "<f4").reshape(outputs["logits"]["shape"])
    np.testing.assert_array_equal(embedding, expected.embedding)
    np.testing.assert_array_equal(logits, expected.logits)


def test_every_dialect_gives_an_image_the_same_embedding(chain: Chain, engine: Engine, model: ServedModel) -> None:
    file = chain.test_files()[0]
    text = base64.b64encode(file).decode()
    given = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [text]}
    replies = [
        asked_of(engine, begun(routes, "POST", path, body, model=model))
        for routes, path, body in (
            (openai.ROUTES, "/v1/embeddings", {"model": model.title, "input": text}),
            (weaviate.ROUTES, "/vectors", {"id": "a", "image": text}),
            (inference_protocol.ROUTES, "/v2/models/simclr/infer", {"inputs": [given]}),
        )
    ]
    contents = [json.loads(reply.body) for reply in replies]
    found = [contents[0]["data"][0]["embedding"], contents[1]["vector"], contents[2]["outputs"][0]["data"]]
    (expected,) = engine.embed_files([file])
    for one in found:
        np.testing.assert_array_equal(np.array(one, np.float32), expected.embedding)  # type: ignore[union-attr]
