"""Labels and metadata that are changed, counted and sampled, by an engine: what is answered, and who heeds it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import (
    CountRequest,
    DeleteRequest,
    FacetsRequest,
    GetRequest,
    ItemChange,
    NewItem,
    Request,
    SampleRequest,
    SearchRequest,
    UpdateRequest,
    UpsertRequest,
)
from tests.conftest import Chain

ITEMS = 40


@pytest.fixture(scope="module")
def opened(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine.open(chain.release.folder, tmp_path_factory.mktemp("labels"), options=EngineOptions(form="onnx"))


@pytest.fixture
def labelled(chain: Chain, opened: Engine) -> Iterator[Engine]:
    """Forty items, of the labels even and odd."""
    files = chain.test_files()[:ITEMS]
    items = [NewItem(f"n{n}", file, "odd" if n % 2 else "even", {"n": n}) for n, file in enumerate(files)]
    answered(opened, UpsertRequest(items=tuple(items)))
    yield opened
    answered(opened, DeleteRequest(filter={"bytes": {"gte": 0}}))


def answered(engine: Engine, request: Request) -> Answer:
    (answer,) = engine.answer([request])
    assert isinstance(answer, Answer), answer
    return answer


def refused(engine: Engine, request: Request) -> RequestError:
    (answer,) = engine.answer([request])
    assert isinstance(answer, RequestError), answer
    return answer


def test_an_update_answers_item_by_item(labelled: Engine) -> None:
    changes = (
        ItemChange("n0", "cat"),
        ItemChange("none", "cat"),
        ItemChange("n1", "x" * 600),
        ItemChange("n2", "even", {"n": 2}),
        ItemChange("n3"),
        ItemChange("n4", None, {"n": None, "new": [1]}),
        ItemChange("n5", metadata={"label": "x"}),
    )
    answer = answered(labelled, UpdateRequest(changes))
    assert [one for one in answer.results if isinstance(one, dict)] == [
        {"id": "n0", "outcome": "updated"},
        {"id": "n2", "outcome": "unchanged"},
        {"id": "n4", "outcome": "updated"},
    ]
    failures = [(at, one.status) for at, one in enumerate(answer.results) if isinstance(one, RequestError)]
    assert failures == [(1, 404), (2, 400), (4, 400), (6, 400)]
    assert str(answer.results[1]) == "no item with id 'none'"
    got = answered(labelled, GetRequest(("n0", "n4"))).results
    assert [(one["label"], one["metadata"], one["embedded"]) for one in got] == [
        ("cat", {"n": 0}, True),
        (None, {"new": [1]}, True),
    ]
    assert {one["seq"] for one in got} == {answer.more["seq"]}


def test_metadata_is_replaced_where_that_is_asked(labelled: Engine) -> None:
    changes = (ItemChange("n0", metadata={"a": None}), ItemChange("n1", "cat"))
    answered(labelled, UpdateRequest(changes, replace_metadata=True))
    got = answered(labelled, GetRequest(("n0", "n1"))).results
    assert [one["metadata"] for one in got] == [{"a": None}, {"n": 1}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((ItemChange("n0", "a"), ItemChange("n0", "b")), "id 'n0' occurs twice in one update"),
        ((ItemChange("n0"),), "neither a label nor metadata"),
    ],
)
def test_updates_that_are_refused(labelled: Engine, changes: tuple[ItemChange, ...], message: str) -> None:
    (answer,) = labelled.answer([UpdateRequest(changes)])
    failure = answer.results[0] if isinstance(answer, Answer) else answer
    assert isinstance(failure, RequestError)
    assert (failure.status, message in str(failure)) == (400, True)


def test_searches_filters_and_votes_of_another_worker_heed_an_update_at_once(labelled: Engine, chain: Chain) -> None:
    assert labelled.collection is not None
    folder = labelled.collection.catalogue.folder
    other = Engine.open(chain.release.folder, folder, options=EngineOptions(form="onnx"))
    asking = SearchRequest(ids=("n0",), k=5, include=frozenset({"vote", "metadata"}))
    before = answered(other, asking).results[0]
    near = [one["id"] for one in before["neighbours"]]
    answered(labelled, UpdateRequest(tuple(ItemChange(name, "new", {"turn": 1}) for name in near)))
    after = answered(other, asking).results[0]
    assert [(one["id"], one["score"]) for one in after["neighbours"]] == [
        (one["id"], one["score"]) for one in before["neighbours"]
    ]
    assert {one["label"] for one in after["neighbours"]} == {"new"}
    assert after["vote"]["label"] == "new"
    assert after["neighbours"][0]["metadata"]["turn"] == 1
    narrow = answered(other, SearchRequest(ids=("n0",), k=9, filter={"label": "new", "turn": 1})).results[0]
    assert [one["id"] for one in narrow["neighbours"]] == near
    grouped = answered(other, SearchRequest(ids=("n0",), k=9, group_by="turn")).results[0]
    assert [one["id"] for one in grouped["neighbours"]] == near[:1]


def test_writes_of_a_batch_are_made_in_their_order(labelled: Engine, chain: Chain) -> None:
    file = chain.test_files()[0]
    answers = labelled.answer(
        [
            UpdateRequest((ItemChange("fresh", "early"),)),
            UpsertRequest((NewItem("fresh", file, "first"),)),
            UpdateRequest((ItemChange("fresh", "second"),)),
            GetRequest(("fresh",)),
        ]
    )
    assert all(isinstance(answer, Answer) for answer in answers)
    early, _, second, got = [answer.results[0] for answer in answers if isinstance(answer, Answer)]
    assert (early.status, second["outcome"], got["label"]) == (404, "updated", "second")


def test_a_label_that_looks_like_another_is_told(labelled: Engine) -> None:
    answer = answered(labelled, UpdateRequest((ItemChange("n0", "caf\u00e9"), ItemChange("n1", "cafe\u0301"))))
    assert all("looks like another one" in one["warning"] for one in answer.results)


def test_facets(labelled: Engine) -> None:
    answered(labelled, UpdateRequest((ItemChange("n0", None), ItemChange("n1", metadata={"n": 3, "tag": True}))))
    assert answered(labelled, FacetsRequest(("label", "n", "tag"), limit=2)).more == {
        "facets": {
            "label": [{"value": "odd", "count": 20}, {"value": "even", "count": 19}],
            "n": [{"value": 3, "count": 2}, {"value": 0, "count": 1}],
            "tag": [{"value": True, "count": 1}],
        },
        "distinct": {"label": 2, "n": 39, "tag": 1},
        "missing": {"label": 1, "n": 0, "tag": 39},
    }
    narrow = answered(labelled, FacetsRequest(("label",), filter={"n": {"lt": 4}})).more
    assert narrow["facets"]["label"] == [{"value": "odd", "count": 2}, {"value": "even", "count": 1}]
    assert refused(labelled, FacetsRequest(("id",))).status == 400
    answered(labelled, UpdateRequest(tuple(ItemChange(f"n{n}", metadata={"t": f"{n}" * 30_000}) for n in range(ITEMS))))
    assert answered(labelled, FacetsRequest(("t",), limit=1)).more["distinct"] == {"t": ITEMS}
    assert refused(labelled, FacetsRequest(("t",), limit=ITEMS)).status == 413


def test_a_sample_is_of_what_matches_and_the_same_for_a_seed(labelled: Engine) -> None:
    def sample(**asked: object) -> list[str]:
        return [one["id"] for one in answered(labelled, SampleRequest(**asked)).more["items"]]  # type: ignore[arg-type]

    even = {"label": "even"}
    first = sample(count=7, filter=even, seed=5)
    assert len(set(first)) == 7
    assert all(int(name[1:]) % 2 == 0 for name in first)
    assert first == sample(count=7, filter=even, seed=5) != sample(count=7, filter=even, seed=6)
    assert sorted(sample(count=200, filter=even)) == sorted(f"n{n}" for n in range(0, ITEMS, 2))
    assert len({tuple(sample(count=5)) for _ in range(5)}) > 1
    assert sample(filter={"label": "none"}) == []
    shown = answered(labelled, SampleRequest(count=1, include=frozenset({"vector", "thumbnail"}))).more["items"][0]
    assert (shown["embedded"], len(shown["vector"]) > 0, shown["thumbnail"].media_type) == (True, True, "image/jpeg")


def test_a_sample_is_uniform(labelled: Engine) -> None:
    counts: Counter[str] = Counter()
    for seed in range(600):
        counts.update(one["id"] for one in answered(labelled, SampleRequest(count=4, seed=seed)).more["items"])
    expected = 600 * 4 / ITEMS
    chi2 = sum((counts[f"n{n}"] - expected) ** 2 / expected for n in range(ITEMS))
    assert chi2 < 73  # the 0.999 quantile of 39 degrees of freedom
    assert np.isclose(sum(counts.values()), 2400)


def test_an_update_makes_no_item_wait_for_an_embedding(labelled: Engine) -> None:
    assert labelled.collection is not None
    other = "f" * 64
    catalogue = labelled.collection.catalogue
    catalogue.spaces.open(other)
    before = catalogue.spaces.pending(other, limit=99)
    answered(labelled, UpdateRequest((ItemChange("n0", "cat"),)))
    assert catalogue.spaces.pending(other, limit=99) == before
    assert catalogue.spaces.count_pending(labelled.space) == 0
    assert answered(labelled, CountRequest(filter={"label": "cat"})).more == {"count": 1}
    catalogue.spaces.close(other)
