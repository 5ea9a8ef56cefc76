"""Pictures told from one another by the first eight bytes of their file's SHA-256, as numbers.

A release carries those that its training could see (`Release.seen`), so that a collection's items are known for old or
new by what they show, whenever and however they came (`serving.collection.drift.drift`). Eight bytes are enough: among
a million seen pictures, a new one is taken for one of them with a chance of 5e-14.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Contents = NDArray[np.uint64]


def contents(digests: Iterable[bytes]) -> Contents:
    """Of SHA-256 digests, or their first eight bytes, uint64 (N,), in the order given."""
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype=">u8").astype(np.uint64)
