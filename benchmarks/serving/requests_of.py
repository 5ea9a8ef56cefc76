"""The requests that a server of the benchmark is sent, as bytes ready for the wire, and its replies as embeddings.

Each server has its dialect. Those that take several images in a request get them as base64 in JSON, ours and LitServe
the very same bytes; a single image goes as the raw body. `benchmarks.serving.load` sends them.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.protocol.agreed import MODEL

Reply = Literal["json", "binary"]
ACCEPT: dict[Reply, str] = {"json": "application/json", "binary": "application/octet-stream"}
_MOST_BYTES = 32 * 1024 * 1024  # of all requests together, which the generator holds in memory


class Body(NamedTuple):
    """What a request carries."""

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Dialect:
    """How a server is asked for embeddings; `several` says whether a request may have more than one image.

    `read` gives the embeddings of a reply one behind the other, float32 (N * D,).
    """

    path: str
    write: Callable[[Sequence[bytes]], Body]
    read: Callable[[bytes, Reply], NDArray[np.float32]]
    several: bool = True
    replies: tuple[Reply, ...] = ("json", "binary")


def requests_of(dialect: Dialect, jpegs: Sequence[bytes], *, images: int, reply: Reply) -> list[bytes]:
    """Requests of `images` images each, so that every image is in one, or as many as fit into 32 MiB."""
    groups = max(1, -(-len(jpegs) // images))
    source = cycle(jpegs)
    found: list[bytes] = []
    for _ in range(groups):
        request = http_request(dialect, [*islice(source, images)], reply=reply)
        if found and sum(map(len, found)) + len(request) > _MOST_BYTES:
            break
        found.append(request)
    return found


def http_request(dialect: Dialect, images: Sequence[bytes], *, reply: Reply) -> bytes:
    """One whole HTTP/1.1 request."""
    body = dialect.write(images)
    head = (
        f"POST {dialect.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {body.content_type}\r\n"
        f"Accept: {ACCEPT[reply]}\r\nContent-Length: {len(body.content)}\r\n\r\n"
    )
    return head.encode() + body.content


def _raw_or_json(images: Sequence[bytes]) -> Body:
    if len(images) == 1:
        return Body(images[0], "image/jpeg")
    return Body(orjson.dumps({"images": [base64.b64encode(image).decode() for image in images]}), "application/json")


def _results(reply: bytes, kind: Reply) -> NDArray[np.float32]:
    if kind == "binary":
        return np.frombuffer(reply, "<f4")
    return np.array([result["embedding"] for result in orjson.loads(reply)["results"]], np.float32).ravel()


def _payload(images: Sequence[bytes]) -> Body:
    image = base64.b64encode(images[0]).decode()
    return Body(orjson.dumps({"id": "image", "image": image}), "application/json")


def _vector(reply: bytes, kind: Reply) -> NDArray[np.float32]:
    assert kind == "json"
    return np.array(orjson.loads(reply)["vector"], np.float32)


OURS = Dialect(f"/models/{MODEL}/invoke?op=embed", _raw_or_json, _results)
LITSERVE = Dialect("/predict", _raw_or_json, _results)
TORCH = Dialect("/vectors", _payload, _vector, several=False, replies=("json",))
