"""Pictures that are the same to the byte score 1, whenever each was embedded; labels that look alike are told."""

import numpy as np
import pytest

from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.vectors import Vectors
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer
from serving.protocol.operations import DuplicatesRequest, NewItem, Request, SearchRequest, UpsertRequest
from tests.conftest import Chain

PICTURES = 12


def answer(engine: Engine, request: Request) -> Answer:
    (found,) = engine.answer([request])
    assert isinstance(found, Answer), found
    return found


def moved(vector: Vectors, amount: float, seed: int) -> Vectors:
    """The unit vector, moved and scaled as another batch or machine would: in its last digits."""
    noise = np.random.default_rng(seed).standard_normal(vector.shape)
    noise *= amount / np.linalg.norm(noise)
    moved = vector + noise
    return np.asarray(moved / np.linalg.norm(moved) * (1 - 1e-6), np.float32)


@pytest.fixture(scope="module")
def twins(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Pictures stored twice: as they are embedded, and with an embedding that differs in the last digits."""
    engine = Engine.open(chain.release.folder, tmp_path_factory.mktemp("own"), options=EngineOptions(form="onnx"))
    assert engine.collection is not None
    for at, picture in enumerate(chain.test_files()[:PICTURES]):
        answer(engine, UpsertRequest(items=(NewItem(f"{at}/a", picture),)))
        outputs = engine.embed_files([picture])[0]
        assert not isinstance(outputs, Exception)
        vector = moved(outputs.embedding, 1e-3, at)[None]
        engine.collection.catalogue.upsert([Item(f"{at}/b", Source.kept(picture))], vector, engine.space)
    return engine


def test_duplicates_of_score_1_are_those_that_are_identical(twins: Engine) -> None:
    for least in (0.98, 0.99999, 1.0):
        items = answer(twins, DuplicatesRequest(min_score=least)).more["items"]
        same = {(item["id"], other["id"]) for item in items for other in item["duplicates"] if other["identical"]}
        assert same == {(f"{n}/{s}", f"{n}/{t}") for n in range(PICTURES) for s, t in ("ab", "ba")}, least
        for item in items:
            scores = [other["score"] for other in item["duplicates"]]
            assert scores == sorted(scores, reverse=True)
            assert min(scores) >= least
            assert [other["score"] == 1 for other in item["duplicates"]] == [o["identical"] for o in item["duplicates"]]


@pytest.mark.parametrize("exact", [False, True])
def test_a_search_for_a_stored_picture_finds_its_copies_at_1(twins: Engine, chain: Chain, exact: bool) -> None:
    for at, picture in enumerate(chain.test_files()[:PICTURES]):
        found = answer(twins, SearchRequest(images=(picture,), k=50, min_score=1.0, exact=exact)).results[0]
        assert {(near["id"], near["score"]) for near in found["neighbours"]} == {(f"{at}/a", 1), (f"{at}/b", 1)}


def test_an_equal_vector_scores_1_and_nothing_more(twins: Engine) -> None:
    assert twins.collection is not None
    for at in range(PICTURES):
        vector = twins.collection.catalogue.vectors.of([f"{at}/b"], twins.space)[f"{at}/b"]
        queries = np.asarray(vector)[None]
        with twins.collection.turn():
            scores = twins.collection.index.search(queries, 2 * PICTURES).scores[0]
        assert scores[0] == 1
        assert scores[1] < 1


def test_a_label_that_looks_like_another_is_stored_and_told(twins: Engine, chain: Chain) -> None:
    picture = chain.test_files()[0]
    composed, apart = "caf\u00e9", "cafe\u0301"
    first = answer(
        twins, UpsertRequest(items=(NewItem("composed", picture, composed), NewItem("plain", picture, "cafe")))
    )
    assert first.results == [{"id": "composed", "outcome": "created"}, {"id": "plain", "outcome": "created"}]
    second = answer(twins, UpsertRequest(items=(NewItem("apart", picture, apart), NewItem("again", picture, "cafe"))))
    assert second.results[0].pop("warning").startswith(r"the label 'cafe\u0301' looks like another one")
    assert second.results == [{"id": "apart", "outcome": "created"}, {"id": "again", "outcome": "created"}]
