"""Pictures identified by the first eight bytes of their file's SHA-256, as numbers.

A release carries those of the pictures that its training could see (`Release.seen`), so that an item of a collection is
known to be old or new by its content, whenever and however it came. Eight bytes are enough: among a million seen
pictures, a new one is mistaken for one of them with a probability of 5e-14.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Contents = NDArray[np.uint64]


def contents(digests: Iterable[bytes]) -> Contents:
    """The numbers of SHA-256 digests, or of their first eight bytes, uint64 (N,), in the order given."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype=">u8").astype(np.uint64)
