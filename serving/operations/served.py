"""What a server has to answer with: a release, and perhaps a collection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.collection.drift.drift import Reference
from serving.operations.opened import OpenCollection


@dataclass(frozen=True, eq=False)
class Served:
    """Of the release its title, the classes of its probe, and its embeddings' medians (D,); None where it has none.

    `reference` is what drift is measured against, and `describe` says what is being served.
    """

    title: str
    classes: tuple[str, ...] | None
    medians: NDArray[np.float32] | None
    reference: Reference
    collection: OpenCollection | None
    describe: Callable[[], dict[str, Any]]
