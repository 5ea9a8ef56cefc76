"""The handler by itself: whatever happens to one request of a batch, the others are answered."""

from collections.abc import Sequence
from typing import Any

import pytest

from serving.engine import Engine
from serving.inference.embedder import Embedded, Embedder
from serving.torchserve import handler as handler_module
from serving.torchserve.handler import Handler
from tests.conftest import Chain

JPEG = {"body": {"content-type": "image/jpeg"}}


class Stumbling:
    """The real embedder, but any batch with this very image in it breaks."""

    def __init__(self, embedder: Embedder, stone: bytes) -> None:
        self._embedder, self._stone = embedder, stone

    def files(self, images: Sequence[bytes]) -> list[Embedded]:
        if self._stone in images:
            raise RuntimeError("stumbled")
        return self._embedder.files(images)


@pytest.fixture
def handler(chain: Chain, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Handler:
    monkeypatch.setattr(engine, "_embedder", Stumbling(engine._embedder, chain.test_files()[1]))
    made = Handler()
    made._engine = engine
    return made


def test_torchserve_finds_the_one_class() -> None:
    mine = [
        one for one in vars(handler_module).values() if isinstance(one, type) and one.__module__ == Handler.__module__
    ]
    assert mine == [Handler]


def test_what_breaks_a_batch_fails_alone(chain: Chain, handler: Handler) -> None:
    batch: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"body": bytearray(file)}, JPEG) for file in chain.test_files()[:4]
    ]
    assert [reply.status for reply in handler.replies(batch)] == [200, 500, 200, 200]


def test_requests_that_can_not_be_read_keep_their_places(chain: Chain, handler: Handler) -> None:
    good = chain.test_files()[0]
    batch: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"body": bytearray(b"{")}, {"body": {"content-type": "application/json"}}),
        ({"body": bytearray(good)}, JPEG),
        ({"op": b"fly"}, {}),
        ({"body": 3}, JPEG),
        ({"body": bytearray(good)}, JPEG | {"accept": "application/x-npy"}),
    ]
    assert [reply.status for reply in handler.replies(batch)] == [400, 200, 400, 400, 200]
