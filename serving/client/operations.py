"""Every operation of the client, once, for both of its forms: what to send, and what to make of the reply.

The first line of each is what `Client` and `AsyncClient` say of the method. Results are as the server's JSON has them.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.client.calls import COLLECTION, Call, Page, Steps, form_body, json_body, json_reply, said, segment
from serving.client.errors import ServerError
from serving.client.images import Image, image_bytes, image_groups, several

Vectors = Sequence[Sequence[float]] | NDArray[np.float32]
Filter = Mapping[str, Any]
Example = str | Mapping[str, Any]

_POLL_SECONDS = 0.2
_FORGOTTEN = {"state": "failed", "error": "the server has had so many jobs since that it forgot this one"}


class NewItem(TypedDict):
    """An item to store, with its image in any of the forms that images may have."""

    id: str
    image: Image
    label: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, Any]]


class ItemChange(TypedDict):
    """What is to be different of a stored item: what is absent stays, a label of None is removed."""

    id: str
    label: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, Any]]


# Images


def embed(images: Iterable[Image]) -> Steps[NDArray[np.float32]]:
    """Unit-norm embeddings, float32 (N, D), N >= 1; raises `ServerError` if any image is bad.

    Any number of images: they are read, and sent, as many at a time as one request may hold.
    """
    found = []
    for group in image_groups(images):
        embeddings, _ = yield from _embedded(group)
        found.append(embeddings)
    return np.concatenate(found)


def embed_once(images: Iterable[Image]) -> Steps[tuple[NDArray[np.float32], str]]:
    """The same for at most as many images as one request may hold, and the release that embedded them."""
    return (yield from _embedded([*map(image_bytes, several(images))]))


def classify(images: Iterable[Image], *, vote: bool = False) -> Steps[list[dict[str, Any]]]:
    """For each image `label`, `probability` and `probabilities`, with `vote` also `vote`, its neighbours' label."""
    options = {"include": ["vote"]} if vote else {}
    found: list[dict[str, Any]] = []
    for group in image_groups(images):
        found += yield from _results(Call("POST", "/v1/classify", content=form_body(_files(group), options)))
    return found


def search(
    images: Iterable[Image] = (),
    *,
    ids: Sequence[str] = (),
    vectors: Vectors = (),
    positives: Sequence[Example] = (),
    negatives: Sequence[Example] = (),
    k: int = 10,
    filter: Filter | None = None,
    include: Sequence[str] = (),
    **options: Any,
) -> Steps[list[dict[str, Any]]]:
    """For each image, id, vector and mix of examples (in this order) its `neighbours`, or `error`.

    A neighbour has `id`, `score` (cosine similarity, at most 1) and `label`; an id is not its own neighbour.
    `positives` and `negatives` are ids, or {"image": ...} or {"vector": ...}, and make one query. `include` may
    have metadata, vector, thumbnail and vote; `options` are offset, min_score, exact and group_by.
    """
    body = said(k=k, filter=filter, **options) | {
        "ids": list(ids),
        "vectors": msgspec.json.encode([*map(_numbers, vectors)]),  # ten times faster than `json` with floats
        "positives": [*map(_example, positives)],
        "negatives": [*map(_example, negatives)],
        "include": list(include),
    }
    files = _files([*map(image_bytes, several(images))])
    return (yield from _results(Call("POST", f"{COLLECTION}/search", content=form_body(files, body))))


def describe() -> Steps[dict[str, Any]]:
    """What the server serves: release, labels, collection, limits."""
    return json_reply(Call("GET", "/v1/describe"))


# Items


def upsert(items: Sequence[NewItem]) -> Steps[dict[str, Any]]:
    """Store items, the same id again replaces; returns `seq`, and `results` with `id` and `outcome` for each.

    One transaction: on disk when this returns. At most 64 items.
    """
    files = [(f"image{at}", image_bytes(item["image"])) for at, item in enumerate(items)]
    rows = [
        {"id": item["id"], "image": name, "label": item.get("label"), "metadata": dict(item.get("metadata", {}))}
        for item, (name, _) in zip(items, files, strict=True)
    ]
    call = Call("POST", f"{COLLECTION}/items", "write", content=form_body(files, {"items": rows}))
    return (yield from json_reply(call))


def update(items: Sequence[ItemChange], *, replace_metadata: bool = False) -> Steps[dict[str, Any]]:
    """Change labels and metadata of stored items; returns `seq`, and `results` as `upsert` does.

    Metadata is merged with what the item has, and None removes a key; `replace_metadata` replaces all of it. At
    most 1,000 items. Raises `ServerError`, with the status of the first, if none of them can be changed.
    """
    body = {"items": [{**item} for item in items], "replace_metadata": replace_metadata}
    return json_reply(Call("PATCH", f"{COLLECTION}/items", "write", content=json_body(body)))


def delete(ids: Sequence[str] = (), *, filter: Filter | None = None) -> Steps[dict[str, Any]]:
    """Delete by ids or by a filter; returns `deleted`, a number, and `missing`, the ids that did not exist.

    By a filter it is never sent twice: what matches may have been stored in between.
    """
    content = json_body(said(ids=list(ids), filter=filter))
    call = Call("POST", f"{COLLECTION}/items/delete", "write" if filter is None else "never", content=content)
    return json_reply(call)


def get(ids: Sequence[str], *, include: Sequence[str] = ()) -> Steps[list[dict[str, Any]]]:
    """For each id its item, or `error`; `include` may have vector, thumbnail and image (both base64)."""
    body = {"ids": list(ids), "include": list(include)}
    return _results(Call("POST", f"{COLLECTION}/items/get", content=json_body(body)))


def picture(name: str, *, thumbnail: bool = False) -> Steps[bytes]:
    """The image file of an item as it was stored, or a JPEG of at most 128 pixels a side."""
    body = {"id": name, "include": ["thumbnail"] if thumbnail else []}
    headers = {"accept": "image/*"}
    return (yield Call("POST", f"{COLLECTION}/items/get", content=json_body(body), headers=headers)).content


def items(*, filter: Filter | None = None, include: Sequence[str] = (), page: int = 100) -> Page:
    """Every item that a filter matches, fetched `page` at a time."""
    body = said(filter=filter, include=list(include), limit=page)
    return lambda cursor: Call("POST", f"{COLLECTION}/items/list", content=json_body(body | said(cursor=cursor)))


# The collection


def count(*, filter: Filter | None = None) -> Steps[int]:
    """How many items a filter matches."""
    reply = yield from json_reply(Call("POST", f"{COLLECTION}/count", content=json_body(said(filter=filter))))
    return int(reply["count"])


def facets(keys: Sequence[str], *, filter: Filter | None = None, limit: int = 20) -> Steps[dict[str, dict[str, Any]]]:
    """Of `label` and keys of the metadata, how often each value occurs among the items that a filter matches.

    `facets` has up to `limit` values for each key, each with its `count`, the most frequent first; `distinct` how
    many values there are, `missing` how many items have none.
    """
    body = said(keys=list(keys), filter=filter, limit=limit)
    reply = yield from json_reply(Call("POST", f"{COLLECTION}/facets", content=json_body(body)))
    return {name: reply[name] for name in ("facets", "distinct", "missing")}


def sample(
    count: int = 10, *, filter: Filter | None = None, seed: int | None = None, include: Sequence[str] = ()
) -> Steps[list[dict[str, Any]]]:
    """Random items that a filter matches, at most 256; with the same `seed` the same, while nothing is written."""
    body = said(count=count, filter=filter, seed=seed, include=list(include))
    found: list[dict[str, Any]] = (
        yield from json_reply(Call("POST", f"{COLLECTION}/sample", content=json_body(body)))
    )["items"]
    return found


def stats(*, drift: bool = False) -> Steps[dict[str, Any]]:
    """What the collection holds, and the state of its index; with `drift` also how it has changed."""
    params = {"include": "drift"} if drift else {}
    return json_reply(Call("GET", f"{COLLECTION}/stats", params=params))


def duplicates(*, min_score: float = 0.98, filter: Filter | None = None, page: int = 100) -> Page:
    """Every item that has near-duplicates, with them; each pair appears twice, once for each item."""
    body = said(min_score=min_score, filter=filter, limit=page)
    return lambda cursor: Call("POST", f"{COLLECTION}/duplicates", content=json_body(body | said(cursor=cursor)))


# Snapshots


def snapshots() -> Steps[dict[str, Any]]:
    """The `snapshots` that the server keeps of its collection, and the last `jobs` that saved or restored one."""
    return json_reply(Call("GET", f"{COLLECTION}/snapshots"))


def snapshot(name: str) -> Steps[dict[str, Any]]:
    """Save the collection as it is now, in place of an older snapshot of the name; returns the finished job."""
    return _finished(Call("PUT", _snapshot(name), "never"))


def restore(name: str, *, replace: bool = False) -> Steps[dict[str, Any]]:
    """Give the collection a snapshot's items in one step; `replace` gives up its own. Returns the finished job."""
    return _finished(Call("POST", f"{_snapshot(name)}/restore", "never", content=json_body({"replace": replace})))


def remove_snapshot(name: str) -> Steps[None]:
    """Remove a snapshot that the server keeps."""
    yield Call("DELETE", _snapshot(name), "never")


def _embedded(images: Sequence[bytes]) -> Steps[tuple[NDArray[np.float32], str]]:
    headers = {"accept": "application/octet-stream"}
    reply = yield Call("POST", "/v1/embed", content=form_body(_files(images), {}), headers=headers)
    shape = [int(side) for side in reply.headers["x-shape"].split(",")]
    numbers = np.frombuffer(reply.content, np.dtype(reply.headers["x-dtype"]).newbyteorder("<"))
    return numbers.reshape(shape).astype(np.float32), reply.headers["x-release"]


def _results(call: Call) -> Steps[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = (yield from json_reply(call))["results"]
    return found


def _files(images: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [("image", content) for content in images]


def _numbers(vector: Sequence[float] | NDArray[np.float32]) -> list[float]:
    numbers = np.asarray(vector, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"a vector has a number that is not finite: {numbers[~np.isfinite(numbers)][0]}")
    found: list[float] = numbers.tolist()
    return found


def _example(given: Example) -> str | dict[str, Any]:
    if isinstance(given, str):
        return given
    found = dict(given)
    if "image" in found:
        found["image"] = base64.b64encode(image_bytes(found["image"])).decode()
    if "vector" in found:
        found["vector"] = _numbers(found["vector"])
    return found


def _snapshot(name: str) -> str:
    return f"{COLLECTION}/snapshots/{segment(name)}"


def _finished(call: Call) -> Steps[dict[str, Any]]:
    """Begin a job, and ask for it until it is no longer running."""
    job: dict[str, Any] = (yield from json_reply(call))["job"]
    while job["state"] == "running":
        kept = yield from json_reply(Call("GET", f"{COLLECTION}/snapshots", after=_POLL_SECONDS))
        job = next((one for one in kept["jobs"] if one["id"] == job["id"]), _FORGOTTEN)
    if job["state"] == "failed":
        raise ServerError(job["error"], 0)
    return job
