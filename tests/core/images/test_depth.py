"""Depths other than eight bits, as TIFF and PNG hold them, against the documented rule."""

import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.images.decode import open_upright
from tests.core.images.test_decode import encoded


def tiff(values: NDArray[np.generic], *, bits: int, form: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF of one row of pixels, written by hand: Pillow writes few depths."""
    if bits == 12:
        pairs = values.astype(int).reshape(-1, 2)
        raw = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)
    else:
        raw = values.tobytes()
    tags = {
        256: len(values),
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 1,
        279: len(raw),
        339: form,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\x00" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(tags)) + entries + bytes(4)


def greys(data: bytes) -> list[int]:
    picture = np.asarray(open_upright(data))
    assert (picture[..., 0] == picture[..., 2]).all()
    return [int(value) for value in picture[0, :, 0]]


def test_12_bits_keep_their_upper_eight() -> None:
    assert greys(tiff(np.array([0, 16, 2048, 4095]), bits=12)) == [0, 1, 128, 255]


def test_16_bits_keep_their_high_byte() -> None:
    values = np.array([0, 256, 32768, 65535], np.uint16)
    assert greys(tiff(values, bits=16)) == [0, 1, 128, 255]
    assert greys(tiff(values, bits=16, photometric=0)) == [255, 254, 127, 0]
    assert greys(encoded(Image.fromarray(values[None]), "PNG")) == [0, 1, 128, 255]
    assert greys(b"P5 4 1 65535\n" + values.astype(">u2").tobytes()) == [0, 1, 128, 255]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_integers_without_a_natural_white_are_stretched(dtype: type) -> None:
    form, bits = (1 if dtype is np.uint32 else 2), np.dtype(dtype).itemsize * 8
    assert greys(tiff(np.array([100, 200, 300], dtype), bits=bits, form=form)) == [0, 127, 255]


@pytest.mark.parametrize("values", [[0, 2**31, 2**32 - 1], [2**31 - 5, 2**31, 2**31 + 5], [3 * 2**30, 2**31, 0]])
def test_unsigned_32_bits_go_on_above_the_greatest_signed_number(values: list[int]) -> None:
    exact = np.array(values, np.float64)
    expected = ((exact - exact.min()) * 255 / (exact.max() - exact.min())).astype(int)
    assert greys(tiff(np.array(values, np.uint32), bits=32)) == expected.tolist()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 0.25, 1], [0, 63, 255]),
        ([0, 2.9, 250], [0, 2, 250]),
        ([-10, 0, 10], [0, 127, 255]),
        ([0, 1e6, 4e6], [0, 63, 255]),
        ([np.nan, np.inf, -np.inf, 0, 0.5], [0, 255, 0, 0, 127]),
        ([np.nan, np.nan], [0, 0]),
    ],
)
def test_floats(values: list[float], shown: list[int]) -> None:
    assert greys(tiff(np.array(values, np.float32), bits=32, form=3)) == shown
