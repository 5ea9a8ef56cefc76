"""Encodings against numpy by hand, and what of the neighbours each keeps on real embeddings."""

import numpy as np
import pytest

from serving.protocol.encodings import ENCODINGS, Encoding, pack, unpack
from tests.conftest import Chain


@pytest.fixture
def vectors() -> np.ndarray:
    draw = np.abs(np.random.default_rng(0).normal(size=(5, 13)))  # an odd dimension: bits are padded
    norms: np.ndarray = np.linalg.norm(draw, axis=1, keepdims=True)
    return np.asarray(draw / norms, np.float32)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_float32_is_kept_as_it_is(vectors: np.ndarray, encoding: Encoding) -> None:
    packed = pack(vectors, encoding)
    assert packed.values.dtype == np.dtype("<f4")
    assert (unpack(packed, encoding, 13) == vectors).all()


def test_float16_is_numpys(vectors: np.ndarray) -> None:
    assert (pack(vectors, "float16").values == vectors.astype(np.float16)).all()


def test_int8_keeps_a_127th_of_the_largest_number(vectors: np.ndarray) -> None:
    packed = pack(vectors, "int8")
    assert packed.values.dtype == np.int8
    assert np.abs(packed.values).max(axis=1).tolist() == [127] * 5
    assert packed.scales is not None
    error = np.abs(unpack(packed, "int8", 13) - vectors)
    assert (error <= packed.scales[:, None] / 2 + 1e-7).all()


def test_a_vector_of_zeros_is_no_division_by_zero() -> None:
    packed = pack(np.zeros((1, 4), np.float32), "int8")
    assert (unpack(packed, "int8", 4) == 0).all()


def test_binary_is_above_the_median_highest_bit_first(vectors: np.ndarray) -> None:
    medians = np.median(vectors, axis=0)
    packed = pack(vectors, "binary", medians=medians)
    assert packed.values.shape == (5, 2)
    above = vectors[0] > medians
    assert packed.values[0, 0] == sum(int(bit) << (7 - place) for place, bit in enumerate(above[:8]))
    signs = unpack(packed, "binary", 13)
    assert ((signs > 0) == (vectors > medians)).all()
    np.testing.assert_allclose(np.linalg.norm(signs, axis=1), 1, atol=1e-6)


def test_binary_without_medians_is_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="medians"):
        pack(vectors, "binary")


@pytest.mark.parametrize(("encoding", "least"), [("base64", 1.0), ("float16", 0.98), ("int8", 0.9), ("binary", 0.3)])
def test_neighbours_of_real_embeddings_survive(chain: Chain, encoding: Encoding, least: float) -> None:
    _, stored = chain.stored()
    vectors = stored.astype(np.float32)
    medians = chain.release.medians()
    packed = unpack(pack(vectors, encoding, medians=medians), encoding, vectors.shape[1])

    def nearest(matrix: np.ndarray) -> np.ndarray:
        return np.argsort(-(matrix @ matrix.T), axis=1, kind="stable")[:, 1:11]

    same = [len(set(one) & set(two)) / 10 for one, two in zip(nearest(vectors), nearest(packed), strict=True)]
    assert np.mean(same) >= least


def test_all_encodings_are_tested_here() -> None:
    assert set(ENCODINGS) == {"float", "base64", "float16", "int8", "binary"}
