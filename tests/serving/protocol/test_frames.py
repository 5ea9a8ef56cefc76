"""Frames: every request and every answer comes out as it went in."""

from typing import Any

import numpy as np
import pytest

from core.images.decode import ImageFormatUnknown, ImageTooLarge
from serving.protocol.frames import Asked, Work, pack_answers, pack_requests, unpack_answers, unpack_requests
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import (
    CountRequest,
    DescribeRequest,
    EmbedRequest,
    Example,
    NewItem,
    Request,
    SearchRequest,
    UpsertRequest,
)
from serving.protocol.wire import encode

REQUESTS: list[Request] = [
    EmbedRequest(images=(b"\x00\xff", b"jpeg"), encoding_format="int8"),
    DescribeRequest(),
    UpsertRequest(items=(NewItem("a/ü", b"png", label=None, metadata={"year": 2024, "tags": ["x", None]}),)),
    SearchRequest(vectors=([0.1, 1e-30, -1.0],), positives=("one", Example(image=b"x")), include=frozenset(["vote"])),
    CountRequest(filter={"label": {"in": ["cat", None]}}),
]


def test_requests_come_out_as_they_went_in() -> None:
    assert unpack_requests(pack_requests(REQUESTS)) == Asked(REQUESTS)


def test_origins_and_the_work_come_out_as_they_went_in() -> None:
    origins = ["a", "b c", "-", "ü", ""]
    assert unpack_requests(pack_requests(REQUESTS, origins)) == Asked(REQUESTS, origins)
    work = Work(7, 1796010000.123456, 0.25)
    answered = unpack_answers(pack_answers([Answer("a/1"), RequestError("x")], work=work))
    assert answered.work == work
    assert isinstance(answered.answers[0], Answer)
    assert answered.answers[0].worker == 7


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x91\x81\xa2op\xa4none", pack_requests(REQUESTS)[:-1]])
def test_what_is_no_frame_is_refused(message: bytes) -> None:
    with pytest.raises(RequestError, match="frame"):
        unpack_requests(message)


def random(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_answers_make_the_same_reply() -> None:
    picture = Picture(b"\xff\xd8", "image/jpeg")
    answers: list[Answer | RequestError] = [
        Answer("digits/1", [{"embedding": random(5)}, ImageFormatUnknown("no image")]),
        Answer("digits/1", [{"embedding": random(5)}], "binary", medians=random(5)),
        Answer("digits/1", [{"id": "a", "vector": random(3), "thumbnail": picture, "metadata": {"a": [1, None]}}]),
        Answer("digits/1", more={"items": [{"vector": None, "thumbnail": picture}], "cursor": None, "n": 3}),
        RequestError("later", 503, retry_after=2),
    ]
    for before, after in zip(answers, unpack_answers(pack_answers(answers)).answers, strict=True):
        assert encode(after) == encode(before)


def test_failures_keep_status_and_message() -> None:
    failures = [ImageTooLarge("x"), RequestError("y", 404), RequestError("z", 503, retry_after=7)]
    (found,) = unpack_answers(pack_answers([Answer("a/1", [*failures])])).answers
    assert isinstance(found, Answer)
    assert [(str(one), one.status, one.retry_after) for one in found.results] == [
        ("x", 413, None),
        ("y", 404, None),
        ("z", 503, 7),
    ]


def test_numbers_are_kept_to_the_bit() -> None:
    vector = random(7)
    (found,) = unpack_answers(pack_answers([Answer("a/1", [{"embedding": vector, "score": float(vector[0])}])])).answers
    assert isinstance(found, Answer)
    assert np.array_equal(found.results[0]["embedding"], vector)
    assert found.results[0]["embedding"].dtype == np.float32
    assert found.results[0]["score"] == float(vector[0])
