"""Embeddings as they travel: float32, float16, int8 or one bit a dimension.

| encoding_format | bytes (D = 2048) | what it keeps |
| --- | --- | --- |
| float | 4 D | everything, as numbers in JSON |
| base64 | 4 D | everything, as little-endian float32 (the format that OpenAI's clients ask for) |
| float16 | 2 D | 11 bits of each number |
| int8 | D | 1/127 of the vector's largest number; a vector's scale is its own |
| binary | D / 8 | whether each number is above that dimension's median on training images |

The median is needed because an encoder that ends in ReLU and an average has no negative numbers: their signs say
nothing. `benchmarks.serving.encodings` measures how many neighbours each keeps.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Encoding = Literal["float", "base64", "float16", "int8", "binary"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


class Encoded(NamedTuple):
    """`values` (N, D) float32, float16 or int8, or uint8 (N, ceil(D / 8)); `scales` float32 (N,) of int8, else None."""

    values: NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8] | NDArray[np.uint8]
    scales: NDArray[np.float32] | None = None


def pack(embedding: NDArray[np.float32], encoding: Encoding, *, medians: NDArray[np.float32] | None = None) -> Encoded:
    """Encode embeddings (N, D); `medians` (D,) are needed for binary. Little-endian on every machine."""
    if encoding == "float16":
        return Encoded(embedding.astype("<f2"))
    if encoding == "int8":
        scales = np.abs(embedding).max(axis=1) / np.float32(127)
        safe = np.where(scales > 0, scales, np.float32(1))
        return Encoded(np.rint(embedding / safe[:, None]).astype(np.int8), scales.astype("<f4"))
    if encoding == "binary":
        if medians is None:
            raise ValueError("encoding is 'binary', which needs the release's medians")
        return Encoded(np.packbits(embedding > medians, axis=1))  # the first dimension is the highest bit
    return Encoded(embedding.astype("<f4"))


def unpack(encoded: Encoded, encoding: Encoding, dim: int) -> NDArray[np.float32]:
    """Vectors (N, D) to compare by cosine, as exact as the encoding kept them; of binary, +1 and -1 at unit norm."""
    if encoding == "binary":
        bits = np.unpackbits(encoded.values.astype(np.uint8), axis=1, count=dim)
        signs: NDArray[np.float32] = (2.0 * bits - 1.0) / np.sqrt(dim)
        return signs.astype(np.float32)
    values: NDArray[np.float32] = encoded.values.astype(np.float32)
    if encoded.scales is not None:
        values *= encoded.scales[:, None]
    return values
