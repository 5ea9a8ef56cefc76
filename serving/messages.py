"""What is asked of the engine and what it answers, as plain values without HTTP in them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.encodings import Encoding
from serving.images import ImageError

Op = Literal["embed", "classify", "search", "describe"]
OPS: tuple[Op, ...] = ("embed", "classify", "search", "describe")
MAX_IMAGES = 64
MAX_K = 1000


class RequestError(ValueError):
    """A request that can't be answered; `status` is the HTTP status that says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


Failure = RequestError | ImageError


@dataclass(frozen=True)
class Request:
    """One request: an operation on images, or for a search also on stored ids or vectors (float32, D).

    `encoding` is how an embedding is to be written; only embed has any.
    """

    op: Op
    images: tuple[bytes, ...] = ()
    ids: tuple[str, ...] = ()
    vectors: tuple[NDArray[np.float32], ...] = ()
    k: int = 10
    encoding: Encoding = "float"


@dataclass(frozen=True)
class Answer:
    """What came out: one entry per image, id or vector, in the order of the request, each maybe a failure.

    `medians` (D,) are the release's, for binary embeddings; None where it has none.
    """

    op: Op
    release: str
    results: list[Any] = field(default_factory=list)
    encoding: Encoding = "float"
    medians: NDArray[np.float32] | None = None
