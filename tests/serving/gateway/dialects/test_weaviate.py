import base64
import json

import numpy as np
import pytest

from core.images.decode import ImageError
from serving.gateway.dialects.weaviate import ROUTES
from serving.protocol.messages import Answer
from serving.protocol.operations import EmbedRequest
from serving.protocol.wire import Reply
from tests.serving.gateway.dialects.asking import answered, begun, embeddings, refused, translated

FILE = b"any bytes"
BODY = {"id": "6f1a", "image": base64.b64encode(FILE).decode()}


def test_a_vector_comes_back_under_its_id() -> None:
    found = begun(ROUTES, "POST", "/vectors", BODY)
    assert translated(found).request == EmbedRequest((FILE,))
    (vector,) = embeddings(1)
    reply = answered(found, Answer("digits/7", [{"embedding": vector}]))
    content = json.loads(reply.body)
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert (content["id"], content["dim"], content.keys()) == ("6f1a", 5, {"id", "vector", "dim"})
    np.testing.assert_array_equal(np.array(content["vector"], np.float32), vector)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "can't be read"),
        ({"id": "a"}, "image"),
        ({"id": "a", "image": 7}, "$.image"),
        ({"id": "a", "image": "a cat!"}, "base64"),
        ({"id": "a", "image": "https://example.org/cat.png"}, "an address, and none is fetched"),
    ],
)
def test_what_is_wrong_is_said_in_a_text(body: object, words: str) -> None:
    status, content = refused(begun(ROUTES, "POST", "/vectors", body))
    assert status == 400
    assert content.keys() == {"error"}
    assert words in content["error"]


def test_a_broken_image_is_an_error() -> None:
    reply = answered(begun(ROUTES, "POST", "/vectors", BODY), Answer("digits/7", [ImageError("broken")]))
    assert (reply.status, json.loads(reply.body)) == (422, {"error": "image 0: broken"})


def test_live_is_told_always_and_ready_only_with_a_worker() -> None:
    for path in ("/.well-known/live", "/.well-known/ready"):
        _, reply = begun(ROUTES, "GET", path)
        assert isinstance(reply, Reply)
        assert (reply.status, reply.body) == (204, b"")
    _, reply = begun(ROUTES, "GET", "/.well-known/live", model=None)
    assert isinstance(reply, Reply)
    assert reply.status == 204
    assert refused(begun(ROUTES, "GET", "/.well-known/ready", model=None))[0] == 503


def test_meta_says_what_is_served() -> None:
    _, content = refused(begun(ROUTES, "GET", "/meta"))
    assert content == {"model": "digits/7", "architecture": "resnet18", "dim": 5, "image_size": 4}
