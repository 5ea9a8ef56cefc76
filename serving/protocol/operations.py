"""Every operation of the service: a type that says what it takes, and a row that says what it needs.

A new operation is a type here, its row in `OPERATIONS`, and its function in `serving.operations.answers`. Parsing,
errors, refusals, `describe` and the engine read them. Values are plain: image files are bytes, vectors are lists, a
filter is as it was written in JSON. What a type can't say of single values, its `refusal` says of them together.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from serving.protocol.agreed import (
    MAX_HEAVY,
    MAX_IDS,
    MAX_IMAGES,
    MAX_K,
    MAX_KEYS,
    MAX_LIMIT,
    MAX_OFFSET,
    MAX_SEED,
)
from serving.protocol.encodings import Encoding
from serving.protocol.media_types import EMBEDDING_REPLIES, JSON_REPLIES, PICTURE_REPLIES, MediaType
from serving.protocol.messages import RequestError

Scope = Literal["read", "write", "admin"]
Include = Literal["metadata", "vector", "thumbnail", "image", "vote", "drift", "logits"]

_AtMost64 = Meta(max_length=MAX_IMAGES)
_Images = Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=MAX_IMAGES)]
_Limit = Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
_Name = Annotated[str, Meta(min_length=1)]
_Id = Annotated[str, Meta(pattern=r"^[^\x00]*$")]  # what a catalogue can't compare is no one's id
_Score = Annotated[float, Meta(ge=-1, le=1)]


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a search is to be like or unlike: exactly one of a stored id, an image file and a vector (D,)."""

    id: _Id | None = None
    image: bytes | None = None
    vector: list[float] | None = None


class NewItem(Struct, frozen=True, forbid_unknown_fields=True):
    """An item to store, with the bytes of its image file."""

    id: str
    image: bytes
    label: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class ItemChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different of a stored item; a field that is absent stays as it is, a label of null goes."""

    id: _Id
    label: str | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class Request(
    Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="op",
    tag=lambda name: name.removesuffix("Request").lower(),
):
    """One request, of whichever operation."""

    @property
    def op(self) -> str:
        """The operation's name."""
        return str(self.__struct_config__.tag)

    @property
    def files(self) -> tuple[bytes, ...]:
        """Every image file to embed, in the order in which the embeddings are wanted."""
        return getattr(self, "images", ())

    @property
    def included(self) -> frozenset[Include]:
        """What the reply is to have besides."""
        return getattr(self, "include", frozenset())

    def refusal(self) -> RequestError | None:
        """What is wrong with these values together, if anything."""
        return None


class EmbedRequest(Request, frozen=True):
    """Embeddings of image files; with `logits` included, also what the linear probe makes of each."""

    images: _Images
    encoding_format: Encoding = "float"
    include: frozenset[Literal["logits"]] = frozenset()


class ClassifyRequest(Request, frozen=True):
    """The linear probe's labels of image files; with `vote` included, also the label that their neighbours have."""

    images: _Images
    include: frozenset[Literal["vote"]] = frozenset()


class SearchRequest(Request, frozen=True):
    """The nearest neighbours of each image, stored id and vector, and of all examples together.

    Skips the first `offset`; `exact` compares with every embedding; of the items that have the same value at the key
    `group_by`, only the best is found.
    """

    images: Annotated[tuple[bytes, ...], _AtMost64] = ()
    ids: Annotated[tuple[_Id, ...], _AtMost64] = ()
    vectors: Annotated[tuple[list[float], ...], _AtMost64] = ()
    positives: Annotated[tuple[_Id | Example, ...], _AtMost64] = ()
    negatives: Annotated[tuple[_Id | Example, ...], _AtMost64] = ()
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)] = 0
    min_score: _Score | None = None
    exact: bool = False
    group_by: str | None = None
    filter: Any = None
    include: frozenset[Literal["metadata", "vector", "thumbnail", "vote"]] = frozenset()

    @property
    def examples(self) -> tuple[Example, ...]:
        """The positives, then the negatives; a plain text is a stored id."""
        both = (*self.positives, *self.negatives)
        return tuple(Example(id=one) if isinstance(one, str) else one for one in both)

    @property
    def files(self) -> tuple[bytes, ...]:
        """The images, then those of the examples."""
        return (*self.images, *(one.image for one in self.examples if one.image is not None))

    def refusal(self) -> RequestError | None:
        """If nothing is looked for, or too much, or by an example that is none."""
        asked = sum(map(len, (self.images, self.ids, self.vectors, self.positives, self.negatives)))
        if not asked:
            return RequestError("search needs at least one image, id or vector, or positives")
        if self.negatives and not self.positives:
            return RequestError("negatives without positives: a search needs something to look for")
        if asked > MAX_IMAGES:
            return RequestError(f"{asked} images, ids and vectors in one request; at most {MAX_IMAGES}", 413)
        return self._bad_example() or _too_heavy(self.include, self.k * asked)

    def _bad_example(self) -> RequestError | None:
        for at, one in enumerate(self.examples):
            given = sum(value is not None for value in (one.id, one.image, one.vector))
            if given != 1:
                positives = len(self.positives)
                what = f"positive {at}" if at < positives else f"negative {at - positives}"
                return RequestError(f"{what} has {given} of id, image and vector; it must have one")
        return None


class DescribeRequest(Request, frozen=True):
    """What is being served: the release, how it runs, the collection, the operations and the limits."""


class UpsertRequest(Request, frozen=True):
    """Store items; an item with the same id is replaced."""

    items: Annotated[tuple[NewItem, ...], Meta(min_length=1, max_length=MAX_IMAGES)]

    @property
    def files(self) -> tuple[bytes, ...]:
        """The items' images."""
        return tuple(item.image for item in self.items)


class UpdateRequest(Request, frozen=True):
    """Change label and metadata of stored items, without their pictures.

    Metadata is a JSON merge patch (RFC 7396); with `replace_metadata` it takes the place of what the item has.
    """

    items: Annotated[tuple[ItemChange, ...], Meta(min_length=1, max_length=MAX_IDS)]
    replace_metadata: bool = False


class DeleteRequest(Request, frozen=True):
    """Delete items by id or by a filter."""

    ids: Annotated[tuple[_Id, ...], Meta(max_length=MAX_IDS)] = ()
    filter: Any = None

    def refusal(self) -> RequestError | None:
        """If neither or both of ids and a filter are given."""
        if bool(self.ids) == (self.filter is not None):
            return RequestError("delete needs either ids or a filter")
        return None


class GetRequest(Request, frozen=True):
    """Items by id."""

    ids: Annotated[tuple[_Id, ...], Meta(min_length=1, max_length=MAX_IDS)]
    include: frozenset[Literal["metadata", "vector", "thumbnail", "image"]] = frozenset()

    def refusal(self) -> RequestError | None:
        """If the reply would be too large."""
        return _too_heavy(self.include, len(self.ids))


class ListRequest(Request, frozen=True):
    """A page of items, all of them or those that a filter matches."""

    filter: Any = None
    limit: _Limit = 100
    cursor: str | None = None
    include: frozenset[Literal["metadata", "vector", "thumbnail"]] = frozenset()

    def refusal(self) -> RequestError | None:
        """If the reply would be too large."""
        return _too_heavy(self.include, self.limit)


class CountRequest(Request, frozen=True):
    """How many items there are, in all or of those that a filter matches."""

    filter: Any = None


class FacetsRequest(Request, frozen=True):
    """How often each value of some keys occurs: of the label and of keys of the metadata, as filters name them."""

    keys: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_KEYS)]
    filter: Any = None
    limit: _Limit = 20


class SampleRequest(Request, frozen=True):
    """Random items, of all or of those that a filter matches; the same for the same seed, while nothing is written."""

    count: Annotated[int, Meta(ge=1, le=MAX_HEAVY)] = 10
    filter: Any = None
    seed: Annotated[int, Meta(ge=0, le=MAX_SEED)] | None = None
    include: frozenset[Literal["metadata", "vector", "thumbnail"]] = frozenset()


class StatsRequest(Request, frozen=True):
    """What the collection holds; with `drift` included, also how it has changed since the encoder was trained."""

    include: frozenset[Literal["drift"]] = frozenset()


class DuplicatesRequest(Request, frozen=True):
    """The items of a page that have near-duplicates, each with its own."""

    filter: Any = None
    limit: _Limit = 100
    cursor: str | None = None
    min_score: _Score = 0.98


class SnapshotRequest(Request, frozen=True):
    """Begin to save the collection under a name."""

    name: _Name


class SnapshotsRequest(Request, frozen=True):
    """The saved snapshots, and the latest jobs."""


class RestoreRequest(Request, frozen=True):
    """Begin to restore a snapshot; `replace` gives up the items that the collection has."""

    name: _Name
    replace: bool = False


class RemoveSnapshotRequest(Request, frozen=True, tag="remove_snapshot"):
    """Remove a saved snapshot."""

    name: _Name


@dataclass(frozen=True)
class Operation:
    """What an operation needs of the server, and how it answers.

    `scope`: what a key must allow. `writes`: it is carried out in the transaction that all writes of a batch share.
    `per_item`: it has a result for each image, id, vector or item. `needs_vectors`: every write acknowledged before
    must have its vector first. `replies`: the media types in which it can answer.
    """

    request: type[Request]
    scope: Scope
    writes: bool = False
    per_item: bool = False
    needs_labels: bool = False
    needs_collection: bool = True
    needs_vectors: bool = False
    replies: tuple[MediaType, ...] = JSON_REPLIES

    @property
    def changes(self) -> bool:
        """Whether it changes anything, now or by a job that it begins: then it takes a POST."""
        return self.scope != "read"

    @property
    def name(self) -> str:
        """What a request calls it."""
        return str(self.request.__struct_config__.tag)


OPERATIONS = {
    row.name: row
    for row in (
        Operation(EmbedRequest, "read", per_item=True, needs_collection=False, replies=EMBEDDING_REPLIES),
        Operation(ClassifyRequest, "read", per_item=True, needs_labels=True, needs_collection=False),
        Operation(SearchRequest, "read", per_item=True, needs_vectors=True),
        Operation(DescribeRequest, "read", needs_collection=False),
        Operation(UpsertRequest, "write", writes=True, per_item=True),
        Operation(UpdateRequest, "write", writes=True, per_item=True),
        Operation(DeleteRequest, "write", writes=True),
        Operation(GetRequest, "read", per_item=True, replies=PICTURE_REPLIES),
        Operation(ListRequest, "read"),
        Operation(CountRequest, "read"),
        Operation(FacetsRequest, "read"),
        Operation(SampleRequest, "read"),
        Operation(StatsRequest, "read"),
        Operation(DuplicatesRequest, "read", needs_vectors=True),
        Operation(SnapshotRequest, "admin"),
        Operation(SnapshotsRequest, "read"),
        Operation(RestoreRequest, "admin"),
        Operation(RemoveSnapshotRequest, "admin"),
    )
}
_BY_TYPE = {row.request: row for row in OPERATIONS.values()}


def operation_of(request: Request) -> Operation:
    """The row of a request's operation."""
    return _BY_TYPE[type(request)]


def _too_heavy(include: frozenset[Any], results: int) -> RequestError | None:
    if results > MAX_HEAVY and not include.isdisjoint(("vector", "thumbnail", "image")):
        return RequestError(f"vectors or pictures of up to {results} items in one reply; at most {MAX_HEAVY}", 413)
    return None
