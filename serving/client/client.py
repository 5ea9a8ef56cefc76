"""The Python client.

    with Client("http://127.0.0.1:8080") as client:
        client.upsert([{"id": "cat", "image": "cat.jpg", "label": "pet", "metadata": {"year": 2024}}])
        client.search(["dog.jpg"], k=5, filter={"label": "pet"})

One `Client` may be shared among threads.
"""

import base64
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

import httpx
import numpy as np
from numpy.typing import NDArray

from serving.client.errors import ServerError
from serving.protocol.agreed import API_KEY, DEFAULT_URL, MAX_IMAGES, MODEL

__all__ = ["Client", "ItemChange", "NewItem", "ServerError"]

Image = bytes | str | Path
Vectors = Sequence[Sequence[float]] | NDArray[np.float32]
_POLL_SECONDS = 0.2
_BUSY = 503
_WORKER_DIED = "Worker died"  # TorchServe's own words, under status 500 or 507
_FORGOTTEN = {"state": "failed", "error": "the server has had so many jobs since that it forgot this one"}


class NewItem(TypedDict):
    """An item to store: a path is read, bytes are an image file."""

    id: str
    image: Image
    label: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, Any]]


class ItemChange(TypedDict):
    """What is to be different of a stored item: what is absent stays, a label of None is removed."""

    id: str
    label: NotRequired[str | None]
    metadata: NotRequired[Mapping[str, Any]]


class Client:
    """Talks to one model of one server. Images are bytes, or paths of image files.

    `api_key` is for a server that needs one; by default it is what the environment has as SIMCLR_API_KEY.

    Methods raise `ServerError` for a request that is refused as a whole. Where one of several images or ids fails, its
    place in the results has an `error`.
    """

    def __init__(
        self, url: str = DEFAULT_URL, model: str = MODEL, *, timeout: float = 60.0, api_key: str | None = None
    ) -> None:
        key = (os.environ.get(API_KEY, "") if api_key is None else api_key).strip()
        here = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
        headers = _of_key(key, url)
        try:
            self._http = httpx.Client(
                base_url=url,
                headers=headers,
                timeout=timeout,
                trust_env=not here,  # no proxy to loopback
            )
        except (ImportError, ValueError) as error:  # a SOCKS proxy needs another package, and is found in ALL_PROXY
            raise ServerError(
                f"{url} can't be reached through the proxy that the environment names: {error} Unset ALL_PROXY, "
                f"HTTP_PROXY and HTTPS_PROXY, or add {httpx.URL(url).host} to NO_PROXY",
                0,
            ) from error
        self.model = model

    # Images

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit-norm embeddings, float32 (N, D), N >= 1; raises `ServerError` if any image is bad."""
        return np.concatenate([self.embed_once(part)[0] for part in _parts(images)])

    def embed_once(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], str]:
        """The same for at most as many images as one request may hold, and the release that embedded them."""
        reply = self._post("embed", images=_texts(images), headers={"accept": "application/x-npy"})
        return np.load(io.BytesIO(reply.content), allow_pickle=False), reply.headers["x-release"]

    def classify(self, images: Sequence[Image], *, vote: bool = False) -> list[dict[str, Any]]:
        """For each image `label`, `probability` and `probabilities`, with `vote` also `vote`, its neighbours' label."""
        include = ["vote"] if vote else []
        return [
            result
            for part in _parts(images)
            for result in self._post("classify", images=_texts(part), include=include).json()["results"]
        ]

    def search(
        self,
        images: Sequence[Image] = (),
        *,
        ids: Sequence[str] = (),
        vectors: Vectors = (),
        positives: Sequence[str | Mapping[str, Any]] = (),
        negatives: Sequence[str | Mapping[str, Any]] = (),
        k: int = 10,
        filter: Mapping[str, Any] | None = None,
        include: Sequence[str] = (),
        **options: Any,
    ) -> list[dict[str, Any]]:
        """For each image, id, vector and mix of examples (in this order) its `neighbours`, or `error`.

        A neighbour has `id`, `score` (cosine similarity, at most 1) and `label`; an id is not its own neighbour.
        `positives` and `negatives` are ids, or {"image": ...} or {"vector": ...}, and make one query. `include` may
        have metadata, vector, thumbnail and vote; `options` are offset, min_score, exact and group_by.
        """
        rows = [[float(number) for number in vector] for vector in vectors]
        body: dict[str, Any] = {
            "ids": list(ids),
            "vectors": rows,
            "k": k,
            "filter": filter,
            "include": list(include),
            **options,
        }
        body |= {"positives": [*map(_example, positives)], "negatives": [*map(_example, negatives)]}
        results: list[dict[str, Any]] = self._post("search", images=_texts(images), **body).json()["results"]
        return results

    # The collection

    def upsert(self, items: Sequence[NewItem]) -> dict[str, Any]:
        """Store items, the same id again replaces; returns `seq`, and `results` with `id` and `outcome` for each.

        One transaction: on disk when this returns. At most 64 items.
        """
        files = {f"image{at}": _read(item["image"]) for at, item in enumerate(items)}
        said = [
            {
                "id": item["id"],
                "image": f"image{at}",
                "label": item.get("label"),
                "metadata": dict(item.get("metadata", {})),
            }
            for at, item in enumerate(items)
        ]
        request = {"files": [*files.items()], "data": {"items": json.dumps(said, allow_nan=False)}}
        return self._json(self._request("POST", "upsert", **request))

    def update(self, items: Sequence[ItemChange], *, replace_metadata: bool = False) -> dict[str, Any]:
        """Change labels and metadata of stored items; returns `seq`, and `results` as `upsert` does.

        Metadata is merged with what the item has, and None removes a key; `replace_metadata` replaces all of it. At
        most 1,000 items. Raises `ServerError`, with the status of the first, if none of them can be changed.
        """
        said = [{**item} for item in items]
        return self._post("update", items=said, replace_metadata=replace_metadata).json()  # type: ignore[no-any-return]

    def delete(self, ids: Sequence[str] = (), *, filter: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Delete by ids or by a filter; returns `deleted`, a number, and `missing`, the ids that did not exist."""
        return self._post("delete", ids=list(ids), filter=filter).json()  # type: ignore[no-any-return]

    def get(self, ids: Sequence[str], *, include: Sequence[str] = ()) -> list[dict[str, Any]]:
        """For each id its item, or `error`; `include` may have vector, thumbnail and image (both base64)."""
        results: list[dict[str, Any]] = self._post("get", ids=list(ids), include=list(include)).json()["results"]
        return results

    def picture(self, name: str, *, thumbnail: bool = False) -> bytes:
        """The image file of an item as it was stored, or a JPEG of at most 128 pixels a side."""
        body = {"id": name, "include": ["thumbnail"] if thumbnail else []}
        return self._post("get", headers={"accept": "image/*"}, **body).content

    def items(
        self,
        *,
        filter: Mapping[str, Any] | None = None,
        include: Sequence[str] = (),
        page: int = 100,
    ) -> Iterator[dict[str, Any]]:
        """Every item that a filter matches, fetched `page` at a time."""
        yield from self._pages("list", filter=filter, include=list(include), limit=page)

    def count(self, *, filter: Mapping[str, Any] | None = None) -> int:
        """How many items a filter matches."""
        return int(self._post("count", filter=filter).json()["count"])

    def facets(
        self, keys: Sequence[str], *, filter: Mapping[str, Any] | None = None, limit: int = 20
    ) -> dict[str, dict[str, Any]]:
        """Of `label` and keys of the metadata, how often each value occurs among the items that a filter matches.

        `facets` has up to `limit` values for each key, each with its `count`, the most frequent first; `distinct` how
        many values there are, `missing` how many items have none.
        """
        reply: dict[str, Any] = self._post("facets", keys=list(keys), filter=filter, limit=limit).json()
        return {name: reply[name] for name in ("facets", "distinct", "missing")}

    def sample(
        self,
        count: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        seed: int | None = None,
        include: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """Random items that a filter matches, at most 256; with the same `seed` the same, while nothing is written."""
        reply = self._post("sample", count=count, filter=filter, seed=seed, include=list(include))
        return reply.json()["items"]  # type: ignore[no-any-return]

    def stats(self, *, drift: bool = False) -> dict[str, Any]:
        """What the collection holds, and the state of its index; with `drift` also how it has changed."""
        include = {"include": "drift"} if drift else {}
        return self._json(self._request("GET", "stats", params={"op": "stats", **include}))

    def duplicates(
        self,
        *,
        min_score: float = 0.98,
        filter: Mapping[str, Any] | None = None,
        page: int = 100,
    ) -> Iterator[dict[str, Any]]:
        """Every item that has near-duplicates, with them; each pair appears twice, once for each item."""
        yield from self._pages("duplicates", min_score=min_score, filter=filter, limit=page)

    def snapshots(self) -> dict[str, Any]:
        """The `snapshots` that the server keeps of its collection, and the last `jobs` that saved or restored one."""
        return self._json(self._request("GET", "snapshots"))

    def snapshot(self, name: str) -> dict[str, Any]:
        """Save the collection as it is now, in place of an older snapshot of the name; returns the finished job."""
        return self._finished(self._post("snapshot", name=name).json()["job"])

    def restore(self, name: str, *, replace: bool = False) -> dict[str, Any]:
        """Give the collection a snapshot's items in one step; `replace` gives up its own. Returns the finished job."""
        return self._finished(self._post("restore", name=name, replace=replace).json()["job"])

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot that the server keeps."""
        self._post("remove_snapshot", name=name)

    def describe(self) -> dict[str, Any]:
        """What the server serves: release, labels, collection, limits."""
        return self._json(self._request("GET", "describe"))

    # HTTP

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pages(self, op: str, **options: Any) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._post(op, cursor=cursor, **options).json()
            yield from page["items"]
            if (cursor := page["cursor"]) is None:
                return

    def _finished(self, job: dict[str, Any]) -> dict[str, Any]:
        while job["state"] == "running":
            time.sleep(_POLL_SECONDS)
            job = next((one for one in self.snapshots()["jobs"] if one["id"] == job["id"]), _FORGOTTEN)
        if job["state"] == "failed":
            raise ServerError(job["error"], 0)
        return job

    def _post(self, op: str, *, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        said = {name: value for name, value in options.items() if value is not None}
        return self._checked(self._request("POST", op, json=said, headers=headers))

    def _request(self, method: str, op: str, **options: Any) -> httpx.Response:
        try:
            options.setdefault("params", {"op": op})
            return self._http.request(method, f"/models/{self.model}/invoke", **options)
        except httpx.TransportError as error:
            raise ServerError(f"no answer from {self._http.base_url}: {error}; is the server running?", 0) from error

    def _json(self, reply: httpx.Response) -> dict[str, Any]:
        found: dict[str, Any] = self._checked(reply).json()
        return found

    @staticmethod
    def _checked(reply: httpx.Response) -> httpx.Response:
        if reply.status_code == 200:
            return reply
        message = _message(reply)
        again = reply.status_code == _BUSY or message.startswith(_WORKER_DIED)
        raise ServerError(f"{reply.status_code}: {message}", reply.status_code, again=again)


def _of_key(key: str, url: str) -> dict[str, str]:
    """The header that carries the key; with a password in the address, Authorization is the proxy's."""
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise ServerError(f"the API key (argument, --api-key or {API_KEY}) has characters that no key has", 0)
    return {"x-api-key": key} if httpx.URL(url).userinfo else {"authorization": f"Bearer {key}"}


def _message(reply: httpx.Response) -> str:
    try:
        content = reply.json()
        return str(content["error"]["message"] if "error" in content else content["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]


def _parts(images: Sequence[Image]) -> list[Sequence[Image]]:
    """Split into as many images as one request may hold; no images are still one request, for the server to refuse."""
    return [images[at : at + MAX_IMAGES] for at in range(0, len(images), MAX_IMAGES)] or [images]


def _texts(images: Sequence[Image]) -> list[str]:
    return [base64.b64encode(_read(image)).decode() for image in images]


def _example(given: str | Mapping[str, Any]) -> str | dict[str, Any]:
    if isinstance(given, str):
        return given
    said = dict(given)
    if "image" in said:
        (said["image"],) = _texts([said["image"]])
    if "vector" in said:
        said["vector"] = [float(number) for number in said["vector"]]
    return said


def _read(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()
