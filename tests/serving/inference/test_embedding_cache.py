import numpy as np
import pytest

from core.images.decode import ImageError
from serving.inference.backends import Outputs
from serving.inference.embedder import Embedder
from serving.inference.embedding_cache import EmbeddingCache
from tests.conftest import Chain


class Counting:
    """Embeds each image as its mean colour, and counts the images it was given."""

    name = "counting"

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: np.ndarray) -> Outputs:
        self.images += len(images)
        return Outputs(images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32), None)


def outputs(number: int, width: int = 100) -> Outputs:
    return Outputs(np.full(width, number, np.float32), None)


def test_what_was_embedded_is_not_embedded_again(chain: Chain) -> None:
    files = chain.test_files()[:6]
    runtime = Counting()
    embedder = Embedder(runtime, 16, cache=EmbeddingCache(1))
    first = embedder.files(files)
    again = embedder.files([files[2], b"no image", *files[:2]])
    assert runtime.images == 6
    assert isinstance(again[1], ImageError)
    for found, wanted in ((again[0], first[2]), (again[2], first[0]), (again[3], first[1])):
        assert isinstance(found, Outputs)
        assert isinstance(wanted, Outputs)
        assert (found.embedding == wanted.embedding).all()
    assert embedder.cache is not None
    assert embedder.cache.describe()["hits"] == 3
    assert embedder.cache.describe()["misses"] == 7


def test_an_image_that_failed_is_tried_again() -> None:
    embedder = Embedder(Counting(), 16, cache=EmbeddingCache(1))
    for _ in range(2):
        assert isinstance(embedder.files([b"broken"])[0], ImageError)
    assert embedder.cache is not None
    assert embedder.cache.describe()["hits"] == 0


def test_it_never_holds_more_than_it_may_and_forgets_the_least_recently_used() -> None:
    cache = EmbeddingCache(1)
    each = 100 * 4 + 400
    room = (1 << 20) // each
    names = [str(number).encode() for number in range(room + 10)]
    for number, name in enumerate(names):
        cache.keep(name, outputs(number))
        cache.find([names[0]])  # used all the time
    assert cache.describe()["bytes"] <= 1 << 20
    assert cache.describe()["images"] == room
    assert cache.find([names[0]])[0] is not None
    assert cache.find([names[1]])[0] is None


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = EmbeddingCache(1)
    cache.keep(b"big", outputs(1, width=1 << 20))
    assert cache.describe()["images"] == 0


def test_a_kept_row_does_not_keep_its_batch() -> None:
    cache = EmbeddingCache(1)
    batch = np.ones((64, 100), np.float32)
    cache.keep(b"row", Outputs(batch[0], batch[0]))
    (kept,) = cache.find([b"row"])
    assert kept is not None
    assert kept.embedding.base is None
    assert kept.logits is not None
    assert kept.logits.base is None


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_passes_keep_the_order_and_a_broken_image_its_place(chain: Chain, count: int) -> None:
    files = (chain.test_files() * 2)[:count]
    broken = count // 2
    given = [*files[:broken], b"broken", *files[broken:]]
    embedder = Embedder(Counting(), 16)
    alone = [embedder.files([file])[0] for file in given]
    for found, wanted in zip(embedder.files(given), alone, strict=True):
        if isinstance(wanted, ImageError):
            assert isinstance(found, ImageError)
        else:
            assert isinstance(found, Outputs)
            assert (found.embedding == wanted.embedding).all()
    assert isinstance(alone[broken], ImageError)


def test_no_images_are_no_embeddings() -> None:
    assert Embedder(Counting(), 16).files([]) == []
