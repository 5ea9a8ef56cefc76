import numpy as np
import pytest

from core.images.decode import ImageError
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.protocol.agreed import MAX_IMAGES
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import ClassifyRequest, EmbedRequest, Request, SearchRequest
from tests.conftest import Chain
from training.measures.embed import embed
from training.model.pixels import Normalisation
from training.run.checkpoint import load_encoder


def answered(engine: Engine, request: Request) -> Answer:
    (answer,) = engine.answer([request])
    assert isinstance(answer, Answer)
    return answer


def test_embeddings_are_the_checkpoints_own(chain: Chain, engine: Engine) -> None:
    loaded = load_encoder(chain.ingredients.checkpoint)
    rows = chain.data.rows("test")
    expected = embed(loaded.encoder, chain.data.images[rows], Normalisation(loaded.mean, loaded.std))
    results = answered(engine, EmbedRequest(images=tuple(chain.test_files()))).results
    found = np.stack([result["embedding"] for result in results])
    assert (found * expected).sum(axis=1).min() >= 0.99999
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_batch_answers_as_each_alone(chain: Chain, engine: Engine) -> None:
    files = chain.test_files()[:12]
    requests: list[Request] = []
    for number, file in enumerate(files):
        kinds = (EmbedRequest((file,)), ClassifyRequest((file,)), SearchRequest((file,), k=1 + number))
        requests.append(kinds[number % 3])
    together = engine.answer(requests)
    for request, answer in zip(requests, together, strict=True):
        assert isinstance(answer, Answer)
        (alone,) = answered(engine, request).results
        (result,) = answer.results
        if isinstance(request, EmbedRequest):
            np.testing.assert_allclose(result["embedding"], alone["embedding"], atol=1e-5)
        elif isinstance(request, ClassifyRequest):
            assert result["label"] == alone["label"]
            assert sum(result["probabilities"].values()) == pytest.approx(1)
        else:
            assert isinstance(request, SearchRequest)
            assert len(result["neighbours"]) == request.k
            assert [near["id"] for near in result["neighbours"]] == [near["id"] for near in alone["neighbours"]]


def test_search_equals_brute_force(chain: Chain, engine: Engine) -> None:
    ids, stored = chain.stored()
    queries = stored[::7][:MAX_IMAGES].astype(np.float32)
    answer = answered(engine, SearchRequest(vectors=tuple((3 * query).tolist() for query in queries), k=10))
    for query, result in zip(queries, answer.results, strict=True):
        scores = stored @ query
        best = np.argsort(-scores, kind="stable")[:10]
        assert [near["id"] for near in result["neighbours"]] == [ids[row] for row in best]
        np.testing.assert_allclose([near["score"] for near in result["neighbours"]], scores[best], atol=1e-5)


def test_an_id_is_not_its_own_neighbour(chain: Chain, engine: Engine) -> None:
    ids, stored = chain.stored()
    (result,) = answered(engine, SearchRequest(ids=(ids[3],), k=5)).results
    expected = [ids[row] for row in np.argsort(-(stored @ stored[3]), kind="stable") if row != 3][:5]
    assert [near["id"] for near in result["neighbours"]] == expected


def test_a_broken_image_fails_alone(chain: Chain, engine: Engine) -> None:
    good = chain.test_files()[0]
    results = answered(engine, EmbedRequest(images=(good, good[: len(good) // 2], b"text", good))).results
    assert isinstance(results[1], ImageError)
    assert results[2].status == 415
    np.testing.assert_array_equal(results[0]["embedding"], results[3]["embedding"])


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        (SearchRequest(), 400, "image, id or vector"),
        (SearchRequest(ids=("a",) * 65), 413, "65 images, ids and vectors"),
    ],
)
def test_refusals(engine: Engine, request_: Request, status: int, message: str) -> None:
    (refusal,) = engine.answer([request_])
    assert isinstance(refusal, RequestError)
    assert refusal.status == status
    assert message in str(refusal)


def test_what_can_not_be_searched_for(engine: Engine) -> None:
    vectors = ([1.0] * 3, [0.0] * 512, [float("nan")] * 512)
    results = answered(engine, SearchRequest(ids=("nothing",), vectors=vectors)).results
    assert [result.status for result in results] == [404, 400, 400, 400]
    assert "3 numbers; the release has 512" in str(results[1])


def test_without_a_collection_there_is_no_search(chain: Chain) -> None:
    alone = Engine.open(chain.release.folder)
    (refusal,) = alone.answer([SearchRequest(ids=("a",))])
    assert isinstance(refusal, RequestError)
    assert refusal.status == 409
    assert "search" not in alone.describe()["operations"]


def test_torchscript_answers_as_onnx(chain: Chain, engine: Engine) -> None:
    request = EmbedRequest(images=tuple(chain.test_files()[:8]))
    other = Engine.open(chain.release.folder, options=EngineOptions(form="torchscript"))
    for one, two in zip(answered(engine, request).results, answered(other, request).results, strict=True):
        np.testing.assert_allclose(one["embedding"], two["embedding"], atol=1e-4)
