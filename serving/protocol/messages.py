"""What is asked of the engine and what it answers, as plain values without HTTP in them."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from serving.collection.catalogue.filters import Filter
from serving.protocol.encodings import Encoding

Op = Literal[
    "embed",
    "classify",
    "search",
    "describe",
    "upsert",
    "delete",
    "get",
    "list",
    "count",
    "stats",
    "duplicates",
    "snapshot",
    "snapshots",
    "restore",
]
OPS: tuple[Op, ...] = get_args(Op)
WRITES: tuple[Op, ...] = ("upsert", "delete")
PER_ITEM: tuple[Op, ...] = ("embed", "classify", "search", "upsert", "get")
OF_NAMED_SNAPSHOT: tuple[Op, ...] = ("snapshot", "restore")
OF_A_COLLECTION: tuple[Op, ...] = (
    *("search", "upsert", "delete", "get", "list", "count", "stats", "duplicates"),
    *("snapshot", "snapshots", "restore"),
)
Include = Literal["metadata", "vector", "thumbnail", "image", "vote", "drift"]
INCLUDES: tuple[Include, ...] = get_args(Include)


class RequestError(ValueError):
    """A request that can't be answered; `status` is the HTTP status that says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


Failure = RequestError | ImageError
Example = bytes | str | NDArray[np.float32]  # an image file, a stored id, or a vector (D,)


@dataclass(frozen=True, eq=False)
class NewItem:
    """An item to store, with the bytes of its image file."""

    id: str
    image: bytes
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Mix:
    """One query made of examples: like the positives (at least one), unlike the negatives."""

    positives: tuple[Example, ...]
    negatives: tuple[Example, ...] = ()

    @property
    def examples(self) -> tuple[Example, ...]:
        """All of them."""
        return (*self.positives, *self.negatives)


@dataclass(frozen=True, eq=False)
class Request:
    """One request: an operation on images, or for a search also on stored ids, vectors (float32, D) or a mix.

    `encoding` is how an embedding is to be written; only embed has any. `where` keeps search, list, count and
    delete to some items. `k`, `offset`, `min_score`, `exact` and `group_by` (a key of which each value is found but
    once) are for search; `items` for upsert; `limit` and `cursor` for list and duplicates; `name` for snapshot and
    restore, `replace` for restore.
    """

    op: Op
    images: tuple[bytes, ...] = ()
    ids: tuple[str, ...] = ()
    vectors: tuple[NDArray[np.float32], ...] = ()
    mix: Mix | None = None
    k: int = 10
    offset: int = 0
    min_score: float | None = None
    exact: bool = False
    group_by: str | None = None
    where: Filter | None = None
    include: frozenset[Include] = frozenset()
    items: tuple[NewItem, ...] = ()
    limit: int = 100
    cursor: str | None = None
    name: str | None = None
    replace: bool = False
    encoding: Encoding = "float"

    @property
    def files(self) -> tuple[bytes, ...]:
        """Every image file that is to be embedded, in the order in which their embeddings are wanted."""
        of_mix = self.mix.examples if self.mix is not None else ()
        return (
            *self.images,
            *(example for example in of_mix if isinstance(example, bytes)),
            *(item.image for item in self.items),
        )


@dataclass(frozen=True)
class Picture:
    """An image file as it is sent back."""

    content: bytes
    media_type: str


@dataclass(frozen=True)
class Answer:
    """What came out: `results` has one entry per image, id, vector, mix or item, in the order of the request.

    Each may be a failure. Operations that are not `PER_ITEM` have everything in `more`.
    `medians` (D,) are the release's, for binary embeddings; None where it has none.
    """

    op: Op
    release: str
    results: list[Any] = field(default_factory=list)
    encoding: Encoding = "float"
    medians: NDArray[np.float32] | None = None
    more: dict[str, Any] = field(default_factory=dict)
