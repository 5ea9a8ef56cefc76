"""The handler by itself: whatever happens to one request of a batch, the others are answered."""

from collections.abc import Sequence
from typing import Any

import pytest

from serving.engine import Engine
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request
from serving.torchserve import handler as handler_module
from serving.torchserve.handler import Handler
from tests.conftest import Chain

JPEG = {"body": {"content-type": "image/jpeg"}}


class Stumbling:
    """The real engine, but any batch with this very image in it breaks."""

    def __init__(self, engine: Engine, stone: bytes) -> None:
        self._engine, self._stone = engine, stone

    def answer(self, requests: Sequence[Request]) -> Sequence[Answer | RequestError]:
        if any(self._stone in request.files for request in requests):
            raise RuntimeError("stumbled")
        return self._engine.answer(requests)


@pytest.fixture
def handler(chain: Chain, engine: Engine) -> Handler:
    made = Handler()
    made._engine = Stumbling(engine, chain.test_files()[1])  # type: ignore[assignment]
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
