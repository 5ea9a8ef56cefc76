"""What comes back from the engine: answers, the pictures in them, and errors with their HTTP status."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.protocol.encodings import Encoding


class RequestError(ValueError):
    """A request that can't be answered; `status` is the HTTP status that says why.

    `retry_after` is in how many seconds the same request may succeed, where that is known.
    """

    def __init__(self, message: str, status: int = 400, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


Failure = RequestError | ImageError


@dataclass(frozen=True)
class Picture:
    """An image file as it is sent back."""

    content: bytes
    media_type: str


@dataclass(frozen=True)
class Answer:
    """What came out, by `release`, a title.

    `results` has one entry per image, id, vector, set of examples or item, in the order of the request, and each may
    be a failure; it is empty only where the operation answers as a whole. Everything else is in `more`. Embeddings
    are to be written in `encoding`, for which binary needs the release's `medians` (D,). `worker` is the process that
    answered, where that is known.
    """

    release: str
    results: list[Any] = field(default_factory=list)
    encoding: Encoding = "float"
    medians: NDArray[np.float32] | None = None
    more: dict[str, Any] = field(default_factory=dict)
    worker: int | None = None
