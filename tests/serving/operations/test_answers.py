"""The table of operations and the functions that answer them fit together."""

import numpy as np
import pytest

from serving.collection.drift.drift import Reference
from serving.engine import Engine
from serving.inference.runtime import Outputs
from serving.operations.answers import ANSWERS
from serving.operations.refusals import begin
from serving.operations.served import Served
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import (
    OPERATIONS,
    ClassifyRequest,
    CountRequest,
    DescribeRequest,
    DuplicatesRequest,
    EmbedRequest,
    GetRequest,
    ListRequest,
    Request,
    SearchRequest,
    SnapshotsRequest,
    StatsRequest,
    operation_of,
)
from tests.conftest import Chain


def test_every_operation_is_a_write_or_has_its_function() -> None:
    written = {row.request for row in OPERATIONS.values() if row.writes}
    assert written.isdisjoint(ANSWERS)
    assert written | set(ANSWERS) == {row.request for row in OPERATIONS.values()}


def test_writes_need_a_key_that_may_write() -> None:
    assert all(row.scope != "read" for row in OPERATIONS.values() if row.writes)


def test_what_answers_per_item_has_results(chain: Chain, engine: Engine) -> None:
    files = (chain.test_files()[0],)
    ids = (chain.stored()[0][0],)
    requests: list[Request] = [
        *(EmbedRequest(files), ClassifyRequest(files), SearchRequest(files), GetRequest(ids), DescribeRequest()),
        *(ListRequest(limit=1), CountRequest(), StatsRequest(), DuplicatesRequest(limit=1), SnapshotsRequest()),
    ]
    for request, answer in zip(requests, engine.answer(requests), strict=True):
        assert isinstance(answer, Answer), request
        assert bool(answer.results) == operation_of(request).per_item
        assert bool(answer.more) != operation_of(request).per_item


@pytest.mark.parametrize("op", ["search", "duplicates"])
def test_what_compares_vectors_needs_them(op: str) -> None:
    assert OPERATIONS[op].needs_vectors
    assert np.count_nonzero([row.needs_vectors for row in OPERATIONS.values()]) == 2


def test_an_embedding_comes_with_logits_where_they_are_asked_for(chain: Chain, engine: Engine) -> None:
    files = tuple(chain.test_files()[:2])
    with_logits, plain = engine.answer([EmbedRequest(files, include=frozenset({"logits"})), EmbedRequest(files)])
    assert isinstance(with_logits, Answer)
    assert isinstance(plain, Answer)
    assert {*plain.results[0]} == {"embedding"}
    for result, image in zip(with_logits.results, engine.embed_files(files), strict=True):
        assert isinstance(image, Outputs)
        assert image.logits is not None
        np.testing.assert_allclose(result["logits"], image.logits, atol=1e-4)


def test_without_a_linear_probe_there_are_no_logits(chain: Chain) -> None:
    unlabelled = Served("photos/1", None, None, Reference.of(chain.release), None, dict)
    requests = (EmbedRequest((b"",), include=frozenset({"logits"})), EmbedRequest((b"",)), ClassifyRequest((b"",)))
    refusals = [one.answer for one in begin(requests, unlabelled)]
    assert [one.status if isinstance(one, RequestError) else None for one in refusals] == [409, None, 409]
