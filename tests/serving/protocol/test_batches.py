"""Of a batch's replies only so many bytes are sent; what changed something is always answered."""

import json
from typing import Any

import numpy as np
import pytest

from serving.protocol.batches import MAX_BATCH_BYTES, encoded_together, expected_bytes
from serving.protocol.media_types import JSON, NPY, MediaType
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import CountRequest, DeleteRequest, EmbedRequest, ListRequest, Request
from serving.protocol.wire import Call, Reply, encode

MIB = 1 << 20
READ, WRITE = ListRequest(), DeleteRequest(ids=("a",))


def of_size(size: int, request: Request | None = READ) -> Call:
    return Call(request, JSON, Answer("r/1", more={"text": "x" * size}))


def encoded(call: Call) -> Reply:
    assert call.answer is not None
    return encode(call.answer, call.media_type)


def statuses(*calls: Call) -> list[int]:
    return [reply.status for reply in encoded_together(calls, encoded)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((3, 3, 3, 1, 3), [200, 200, 503, 200, 503]),
        ((20, 1, 20), [200, 503, 503]),
        ((51, 7, 7), [413, 200, 503]),
    ],
)
def test_what_does_not_fit_comes_later(sizes: tuple[int, ...], expected: list[int]) -> None:
    replies = encoded_together([of_size(size * MIB) for size in sizes], encoded)
    assert [reply.status for reply in replies] == expected
    assert sum(len(reply.body) for reply in replies) <= max(MAX_BATCH_BYTES, sizes[0] * MIB) + 64 * 1024
    assert all(reply.headers == {"retry-after": "1"} for reply in replies if reply.status == 503)


def test_writes_errors_and_small_replies_always_come() -> None:
    refused = Call(answer=RequestError("no"))
    small = Call(CountRequest(), JSON, Answer("r/1", more={"count": 3}))
    batch = (of_size(9 * MIB), of_size(9 * MIB, WRITE), refused, small, of_size(MIB), of_size(60 * MIB, WRITE))
    assert statuses(*batch) == [200, 200, 400, 200, 503, 200]


@pytest.mark.parametrize(("media_type", "status", "written"), [(JSON, 503, 1), (NPY, 200, 2)])
def test_what_plainly_does_not_fit_is_not_even_written(media_type: MediaType, status: int, written: int) -> None:
    called: list[Call] = []

    def count(call: Call) -> Reply:
        called.append(call)
        return encoded(call)

    results = [{"embedding": np.ones(MIB // 12, np.float32)} for _ in range(5)]
    batch = [of_size(4 * MIB), Call(EmbedRequest((b"",)), media_type, Answer("r/1", results))]
    assert [reply.status for reply in encoded_together(batch, count)] == [200, status]
    assert len(called) == written


def test_the_expected_size_is_near_the_real_one() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(64, 512)).astype(np.float32) / 20
    items: list[dict[str, Any]] = [
        {"id": "a", "vector": vector, "thumbnail": Picture(bytes(4096), "image/jpeg")} for vector in vectors
    ]
    answer = Answer("r/1", more={"items": items})
    size = len(encode(answer).body)
    assert json.loads(encode(answer).body)["items"][0]["id"] == "a"
    assert 0.9 * size < expected_bytes(answer) < 1.1 * size
