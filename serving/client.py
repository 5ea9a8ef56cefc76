"""The Python client and its command line.

    python -m serving.client search cat.jpg -k 10
    python -m serving.client embed photographs --out embeddings.npy
    python -m serving.client describe

Left out: anything asynchronous; one `Client` may be shared among threads.
"""

import argparse
import base64
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray

Image = bytes | str | Path
MODEL = "simclr"  # the name under which `serving.launch` registers whatever release it serves
MOST_IMAGES = 64  # what a server takes in one request
DEFAULT_URL = "http://127.0.0.1:8080"


class ServerError(RuntimeError):
    """The server refused a request or could not be reached; `status` is 0 for the latter."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Talks to one model of one server. Images are bytes, or paths of image files."""

    def __init__(self, url: str = DEFAULT_URL, model: str = MODEL, *, timeout: float = 60.0) -> None:
        here = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=not here)  # no proxy to loopback
        self.model = model

    def embed(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Unit-norm embeddings, float32 (N, D), N >= 1; raises `ServerError` if any image is bad."""
        return np.concatenate([self.embed_once(part)[0] for part in _parts(images)])

    def embed_once(self, images: Sequence[Image]) -> tuple[NDArray[np.float32], str]:
        """The same of as many images as one request may hold, and the release that the embeddings are of."""
        reply = self._post("embed", images, headers={"accept": "application/x-npy"})
        return np.load(io.BytesIO(reply.content), allow_pickle=False), reply.headers["x-release"]

    def classify(self, images: Sequence[Image]) -> list[dict[str, Any]]:
        """Per image `label`, `probability` and `probabilities`, or `error`."""
        return [result for part in _parts(images) for result in self._results(self._post("classify", part))]

    def search(
        self,
        images: Sequence[Image] = (),
        *,
        ids: Sequence[str] = (),
        vectors: Sequence[Sequence[float]] | NDArray[np.float32] = (),
        k: int = 10,
    ) -> list[dict[str, Any]]:
        """Per image, id and vector (in this order) its `neighbours`, or `error`.

        A neighbour has `id`, `score` (cosine similarity, at most 1) and `label`; an id is not its own neighbour.
        """
        rows = [[float(number) for number in vector] for vector in vectors]
        return self._results(self._post("search", images, ids=list(ids), vectors=rows, k=k))

    def describe(self) -> dict[str, Any]:
        """What the server serves: release, labels, collection, limits."""
        found: dict[str, Any] = self._checked(self._request("GET", "describe")).json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _post(
        self, op: str, images: Sequence[Image], *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        body = {"images": [base64.b64encode(_read(image)).decode() for image in images], **options}
        return self._checked(self._request("POST", op, json=body, headers=headers))

    def _request(self, method: str, op: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, f"/models/{self.model}/invoke", params={"op": op}, **options)
        except httpx.TransportError as error:
            raise ServerError(f"no answer from {self._http.base_url}: {error}; is the server running?", 0) from error

    @staticmethod
    def _results(reply: httpx.Response) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = reply.json()["results"]
        return results

    @staticmethod
    def _checked(reply: httpx.Response) -> httpx.Response:
        if reply.status_code == 200:
            return reply
        raise ServerError(f"{reply.status_code}: {_message(reply)}", reply.status_code)


def _message(reply: httpx.Response) -> str:
    try:
        content = reply.json()
        return str(content["error"]["message"] if "error" in content else content["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]


def _parts(images: Sequence[Image]) -> list[Sequence[Image]]:
    """As many images as one request may hold, at a time; none is still one request, for the server to refuse."""
    return [images[at : at + MOST_IMAGES] for at in range(0, len(images), MOST_IMAGES)] or [images]


def _read(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serving.client", description="Ask a running server.")
    parser.add_argument("--url", default=DEFAULT_URL, help="the server (default: %(default)s)")
    parser.add_argument("--model", default=MODEL, help="TorchServe's model name (default: %(default)s)")
    commands = parser.add_subparsers(dest="op", required=True)
    embed = commands.add_parser("embed", help="embeddings of images, folders and zips, as a npy file")
    embed.add_argument("paths", nargs="+", metavar="PATH")
    embed.add_argument("--out", type=Path, required=True, help=".npy to write, float32 (N, D); ids go to a .parquet")
    embed.add_argument("--connections", type=int, default=4, help="requests at a time (default: %(default)s)")
    classify = commands.add_parser("classify", help="the linear probe's label for each image file")
    classify.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    search = commands.add_parser("search", help="nearest neighbours of image files or of stored ids")
    search.add_argument("images", type=Path, nargs="*", metavar="IMAGE")
    search.add_argument("--id", dest="ids", action="append", default=[], help="a stored id (may be repeated)")
    search.add_argument("-k", type=int, default=10, help="how many neighbours (default: %(default)s)")
    for command in (classify, search):
        command.add_argument("--json", action="store_true", help="print the server's results as JSON")
    commands.add_parser("describe", help="what the server serves")
    return parser.parse_args(arguments)


def _run(client: Client, given: argparse.Namespace) -> int:
    if given.op == "embed":
        from serving.bulk.remote import embed_command  # takes a moment, and nothing else needs it

        return embed_command(client, given.paths, given.out, connections=given.connections)
    if given.op == "describe":
        print(json.dumps(client.describe(), indent=2))
    elif given.op == "classify":
        _show(given, given.images, client.classify(given.images))
    else:
        _show(given, [*given.images, *given.ids], client.search(given.images, ids=given.ids, k=given.k))
    return 0


def _show(given: argparse.Namespace, names: Sequence[object], results: list[dict[str, Any]]) -> None:
    if given.json:
        print(json.dumps(results, indent=2))
        return
    for name, result in zip(names, results, strict=True):
        print(f"{name}")
        for line in _lines(result):
            print(f"  {line}")


def _lines(result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [f"error {result['error']['status']}: {result['error']['message']}"]
    if "neighbours" in result:
        return [f"{one['score']:.4f}  {one['id']}  {one['label'] or ''}".rstrip() for one in result["neighbours"]]
    return [f"{result['label']}  ({result['probability']:.1%})"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    given = _arguments(arguments)
    try:
        with Client(given.url, given.model) as client:
            return _run(client, given)
    except (ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from serving.client import main as main_of_module  # as __main__ this file would have a ServerError of its own

    sys.exit(main_of_module())
