"""Requests as bytes: what a real server gets, and what its replies say."""

import base64

import numpy as np
import orjson
import pytest

from benchmarks.serving.load import Closed, Target, run
from benchmarks.serving.requests_of import LITSERVE, OURS, TORCH, Dialect, Reply, http_request, requests_of
from tests.benchmarks.local_server import LocalServer

IMAGES = [bytes([number]) * (100 + number) for number in range(20)]


def received(requests: list[bytes]) -> list[bytes]:
    """The bodies that a server reads of requests sent one after the other."""
    with LocalServer() as server:
        run(Target(server.port, requests), Closed(1, seconds=60, warm_up=0, requests=len(requests)))
    return server.bodies[: len(requests)]


def test_a_single_image_is_the_raw_body() -> None:
    assert received(requests_of(OURS, IMAGES, images=1, reply="json")) == IMAGES


def test_several_images_are_json_and_each_image_is_in_some_request() -> None:
    requests = requests_of(OURS, IMAGES, images=8, reply="binary")
    assert requests[0].startswith(b"POST /models/simclr/invoke?op=embed HTTP/1.1\r\n")
    assert b"\r\nAccept: application/octet-stream\r\n" in requests[0]
    sent = [orjson.loads(body)["images"] for body in received(requests)]
    assert [len(images) for images in sent] == [8, 8, 8]
    assert {base64.b64decode(image) for images in sent for image in images} == set(IMAGES)


def test_ours_and_litserve_get_the_same_bytes() -> None:
    for images in (IMAGES[:1], IMAGES[:16]):
        ours, litserve = (
            http_request(dialect, images, reply="json").split(b"\r\n", 1)[1] for dialect in (OURS, LITSERVE)
        )
        assert ours == litserve


def test_the_torch_server_gets_one_image_in_base64() -> None:
    body = orjson.loads(received([http_request(TORCH, IMAGES[:1], reply="json")])[0])
    assert base64.b64decode(body["image"]) == IMAGES[0]
    assert not TORCH.several


def test_requests_stay_within_memory() -> None:
    large = [b"x" * 3_000_000] * 20
    assert len(requests_of(OURS, large, images=1, reply="json")) == 11


@pytest.mark.parametrize(
    ("dialect", "reply", "content"),
    [
        (OURS, "json", b'{"release":"a/1","results":[{"embedding":[1,2]},{"embedding":[3,4]}]}'),
        (LITSERVE, "binary", np.array([[1, 2], [3, 4]], "<f4").tobytes()),
        (TORCH, "json", b'{"id":"image","vector":[1,2,3,4],"dim":4}'),
    ],
)
def test_replies_are_read_as_embeddings(dialect: Dialect, reply: Reply, content: bytes) -> None:
    assert dialect.read(content, reply).tolist() == [1, 2, 3, 4]
