"""The JSON of every reply as types, for OpenAPI to show: nothing is made of them, as replies are written from answers.

In a list of results, one that failed has an `Error` in its place.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from serving.protocol.encodings import Encoding


class ErrorDetails(Struct):
    """What went wrong: the HTTP status again, and a sentence."""

    status: int
    message: str


class Error(Struct):
    """An error of the whole request, or of one result."""

    error: ErrorDetails


class Answered(Struct):
    """A reply names the release that gave it."""

    release: str


class Embedded(Struct):
    """The embedding of an image: numbers, or their bytes in base64, of int8 with a scale."""

    embedding: list[float] | str
    scale: float | UnsetType = UNSET
    logits: list[float] | UnsetType | None = UNSET


class Embeddings(Answered):
    """The embeddings of the images, in their order."""

    results: list[Embedded]
    encoding_format: Encoding | UnsetType = UNSET


class Vote(Struct):
    """The label that the neighbours vote for, its share of the votes, all shares, and how many voted."""

    label: str
    share: float
    shares: dict[str, float]
    voters: int


class Classified(Struct):
    """The linear probe's label of an image."""

    label: str
    probability: float
    probabilities: dict[str, float]
    vote: Vote | UnsetType | None = UNSET


class Classifications(Answered):
    """The labels of the images, in their order."""

    results: list[Classified]


class Neighbour(Struct):
    """An item that was found; `score` is a cosine similarity, `group` its value at `group_by`."""

    id: str
    score: float
    label: str | None
    group: Any = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    vector: list[float] | UnsetType | None = UNSET
    thumbnail: str | UnsetType | None = UNSET


class Neighbours(Struct):
    """What was found for one image, id or vector, or for the examples; the best first."""

    neighbours: list[Neighbour]
    vote: Vote | UnsetType | None = UNSET


class Found(Answered):
    """What was found for each image, then each id, then each vector, then the examples."""

    results: list[Neighbours]


class Item(Struct):
    """What is stored of an item; times in milliseconds since 1970, pictures in base64."""

    id: str
    label: str | None
    metadata: dict[str, Any]
    media_type: str
    bytes: int
    sha256: str
    created: int
    updated: int
    seq: int
    embedded: bool
    vector: list[float] | UnsetType | None = UNSET
    thumbnail: str | UnsetType | None = UNSET
    image: str | UnsetType = UNSET


class OneItem(Item, kw_only=True):
    """An item, and the release that was asked."""

    release: str


class Items(Answered):
    """The items of these ids, in their order."""

    results: list[Item]


class Page(Answered):
    """A page of items; without a cursor it was the last one."""

    items: list[Item]
    cursor: str | None


class Sample(Answered):
    """Random items."""

    items: list[Item]


class Stored(Struct):
    """What became of an item."""

    id: str
    outcome: Literal["created", "replaced", "unchanged", "updated"]
    warning: str | UnsetType = UNSET


class OneStored(Stored, kw_only=True):
    """What became of an item, and the number of this write."""

    release: str
    seq: int | UnsetType = UNSET


class Written(Answered):
    """What became of each item, and the number of this write."""

    results: list[Stored]
    seq: int | UnsetType = UNSET


class Deleted(Answered):
    """How many items were deleted; of the ids that are missing there was none."""

    seq: int
    deleted: int
    missing: list[str]


class Count(Answered):
    """How many items there are."""

    count: int


class FacetValue(Struct):
    """A value, and how many items have it."""

    value: str | float | bool
    count: int


class Facets(Answered):
    """By key: its most frequent values, how many there are, and how many items have none."""

    facets: dict[str, list[FacetValue]]
    distinct: dict[str, int]
    missing: dict[str, int]


class Stats(Answered):
    """What the collection holds; the label "" stands for none."""

    items: int
    embedded: int
    complete: bool
    pending: int
    failed: int
    labels: dict[str, int]
    seq: int
    sources_kept: int
    bytes_on_disk: int
    spaces: dict[str, Any]
    vectors_by_release: dict[str, int]
    index: dict[str, Any]
    drift: dict[str, Any] | UnsetType = UNSET


class Duplicate(Struct):
    """An item that is nearly the same; `identical` files are the same to the byte."""

    id: str
    score: float
    identical: bool


class WithDuplicates(Struct):
    """An item that has near-duplicates."""

    id: str
    duplicates: list[Duplicate]


class Duplicates(Answered):
    """Those items of a page that have near-duplicates."""

    items: list[WithDuplicates]
    min_score: float
    cursor: str | None


class Job(Struct):
    """A job that saves or restores a snapshot; times in milliseconds since 1970."""

    id: str
    what: Literal["save", "restore"]
    name: str
    state: Literal["running", "done", "failed"]
    started: int
    finished: int | None
    items: int | None
    error: str | None


class OneJob(Answered):
    """The job that was begun, or asked for."""

    job: Job


class Snapshot(Struct):
    """A snapshot that is kept; `created` in milliseconds since 1970."""

    name: str
    items: int
    bytes: int
    sha256: str
    created: int


class Snapshots(Answered):
    """The saved snapshots, and the latest jobs, the newest first."""

    snapshots: list[Snapshot]
    jobs: list[Job]


class Removed(Answered):
    """The snapshot that was removed."""

    removed: str


class Description(Answered):
    """What is being served, and its limits."""

    created: str
    digest: str
    space: str
    architecture: str
    embedding_dim: int
    image_size: int
    labels: list[str] | None
    form: str
    runtime: str
    why: str
    encodings: list[Encoding]
    cache: dict[str, Any] | None
    collection: dict[str, Any] | None
    operations: list[str]
    limits: dict[str, int]


class Collection(Struct):
    """A collection, and how many items it has."""

    name: str
    items: int


class Collections(Struct):
    """The collections that the caller may see."""

    collections: list[Collection]


class Status(Struct):
    """Whether the service is up."""

    status: str


OF_OPERATION: dict[str, type[Struct]] = {
    "embed": Embeddings,
    "classify": Classifications,
    "search": Found,
    "describe": Description,
    "upsert": Written,
    "update": Written,
    "delete": Deleted,
    "get": Items,
    "list": Page,
    "count": Count,
    "facets": Facets,
    "sample": Sample,
    "stats": Stats,
    "duplicates": Duplicates,
    "snapshot": OneJob,
    "snapshots": Snapshots,
    "restore": OneJob,
    "remove_snapshot": Removed,
}
OF_ONE: dict[str, type[Struct]] = {**OF_OPERATION, "get": OneItem, "upsert": OneStored, "update": OneStored}
