"""A reply that would be too large is refused before it is built, and one that isn't is told about rightly."""

import numpy as np
import pytest

from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.operations.sizes import MAX_REPLY_BYTES
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import (
    DuplicatesRequest,
    GetRequest,
    ListRequest,
    NewItem,
    Request,
    SearchRequest,
    UpsertRequest,
)
from serving.protocol.wire import encode
from tests.conftest import Chain

NOTE = "n" * 60_000
ITEMS = 320  # with a note each, 18 MiB of metadata
IDS = tuple(f"{number:03d}" for number in range(ITEMS))


@pytest.fixture(scope="module")
def full(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with a collection whose items all have the same picture and much metadata."""
    folder = tmp_path_factory.mktemp("full") / "collection"
    engine = Engine.open(chain.release.folder, folder, options=EngineOptions(form="onnx", cache_mb=8))
    image = chain.test_files()[0]
    for start in range(0, ITEMS, 64):
        items = tuple(NewItem(name, image, metadata={"note": NOTE}) for name in IDS[start : start + 64])
        (answer,) = engine.answer([UpsertRequest(items)])
        assert isinstance(answer, Answer)
    return engine


def query(engine: Engine, count: int) -> tuple[list[float], ...]:
    return tuple(np.eye(engine.manifest.embedding_dim)[:count].tolist())


def test_too_large_replies_are_refused(full: Engine) -> None:
    requests: list[Request] = [
        ListRequest(limit=ITEMS),
        GetRequest(IDS),
        SearchRequest(vectors=query(full, 1), k=ITEMS, include=frozenset({"metadata"})),
        SearchRequest(vectors=query(full, 64), k=5, include=frozenset({"metadata"})),
    ]
    for request, answer in zip(requests, full.answer(requests), strict=True):
        error = encode(answer)
        assert (error.status, b"the reply would have some 18 MiB" in error.body) == (413, True), request


def test_what_is_not_included_does_not_count(full: Engine) -> None:
    requests: list[Request] = [
        ListRequest(limit=250),
        GetRequest(IDS[:250]),
        SearchRequest(vectors=query(full, 64), k=ITEMS),
        DuplicatesRequest(limit=ITEMS),
    ]
    for request, answer in zip(requests, full.answer(requests), strict=True):
        reply = encode(answer)
        assert reply.status == 200, (request, reply.body[:200])
        assert len(reply.body) <= MAX_REPLY_BYTES


@pytest.mark.parametrize("include", [{"vector"}, {"thumbnail"}, {"image"}, {"vector", "image"}])
def test_what_is_told_is_near_what_comes(full: Engine, include: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    request = GetRequest(IDS[:40], frozenset(include))  # type: ignore[arg-type]
    (answer,) = full.answer([request])
    size = len(encode(answer).body)
    monkeypatch.setattr("serving.operations.sizes.MAX_REPLY_BYTES", int(size * 0.8))
    (refused,) = full.answer([request])
    assert isinstance(refused, RequestError)
    assert refused.status == 413
    monkeypatch.setattr("serving.operations.sizes.MAX_REPLY_BYTES", int(size * 1.25))
    assert isinstance(full.answer([request])[0], Answer)
