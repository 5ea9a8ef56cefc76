"""A cache that is cut short, changed or foreign is never trusted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.labelled import blobs
from training.evaluation.embeddings_cache import EmbeddingsCache

KEY = {"representation": {"checkpoint": "abc"}, "dataset": "def", "mean": (0.1, 0.2)}


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingsCache:
    return EmbeddingsCache(tmp_path / "embeddings")


def never() -> NDArray[np.float32]:
    pytest.fail("computed again")


def damage_tail(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def damage_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_all(path: Path) -> None:
    path.write_bytes(b"")


def damage_kind(path: Path) -> None:
    path.write_text("[1, 2")


def test_what_is_kept_is_read(cache: EmbeddingsCache) -> None:
    h = blobs(30, 3)[0]
    assert np.array_equal(cache.get("one", KEY, lambda: h), h)
    again = EmbeddingsCache(cache.folder).get("one", KEY, never)
    assert np.array_equal(again, h)
    assert again.dtype == np.float32


def test_another_key_is_not_there(cache: EmbeddingsCache) -> None:
    first, second = blobs(30, 3)[0], blobs(30, 3, seed=1)[0]
    cache.get("one", KEY, lambda: first)
    assert np.array_equal(cache.get("one", KEY | {"dataset": "other"}, lambda: second), second)
    assert np.array_equal(cache.get("one", KEY, lambda: first), first)


@pytest.mark.parametrize("damage", [damage_tail, damage_bit, damage_all, damage_kind, Path.unlink])
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_file_is_made_anew(cache: EmbeddingsCache, damage: Callable[[Path], None], suffix: str) -> None:
    h = blobs(30, 3)[0]
    cache.get("one", KEY, lambda: h)
    if suffix == ".json" and damage in (damage_tail, damage_bit):
        damage = damage_kind
    damage(cache.folder / f"one{suffix}")
    assert np.array_equal(cache.get("one", KEY, lambda: h), h)
    assert np.array_equal(cache.get("one", KEY, never), h)


def test_a_failed_computation_leaves_nothing(cache: EmbeddingsCache) -> None:
    def fail() -> NDArray[np.float32]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get("one", KEY, fail)
    assert list(cache.folder.iterdir()) == []


def test_dropping(cache: EmbeddingsCache) -> None:
    h = blobs(30, 3)[0]
    for name in ("one-views-0", "one-views-1", "one"):
        cache.get(name, KEY, lambda: h)
    cache.drop("one-views-")
    assert sorted(path.name for path in cache.folder.iterdir()) == ["one.json", "one.npy"]
