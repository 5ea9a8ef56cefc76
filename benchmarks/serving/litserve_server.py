"""The peer with batching: LitServe, with the same file, the same runtime and the same decoding as our server.

    python -m benchmarks.serving.litserve_server --file encoder.onnx --size 32 [--port 8000] [--workers 1]

In good faith: batches of 16 that wait 2 ms, decoding in threads, replies written by orjson (or raw float32) instead of
FastAPI's JSON, ZeroMQ instead of multiprocessing's queues, the cores shared out among the workers. No zero timeout:
LitServe then asks its queue without pause, which takes a core. `benchmarks.serving.serving` tries 1 worker and as many
as there are cores, and keeps the better.
"""

import argparse
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import litserve  # type: ignore[import-untyped]
import numpy as np
import orjson
from fastapi import Depends, Request, Response
from numpy.typing import NDArray

from benchmarks.serving.requests_of import ACCEPT
from core.images.decode import decode
from core.machine.machine import usable_cores
from serving.inference.runtime import open_runtime, run_in_passes

BATCH, BATCH_TIMEOUT = 16, 0.002

Received = tuple[bytes, bool, bool]  # the body, whether it is JSON, whether the reply is to be binary
Decoded = tuple[list[NDArray[np.uint8]], bool]


async def received(request: Request) -> Received:
    """What a worker needs of a request; LitServe itself would read JSON only."""
    kinds = (request.headers.get(name, "") for name in ("content-type", "accept"))
    is_json, binary = (kind == wanted for kind, wanted in zip(kinds, (ACCEPT["json"], ACCEPT["binary"]), strict=True))
    return await request.body(), is_json, binary


class EmbeddingAPI(litserve.LitAPI):  # type: ignore[misc]
    """Images to embeddings, in batches of requests."""

    def __init__(self, file: Path, size: int, *, threads: int) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=BATCH_TIMEOUT)
        self._open = partial(open_runtime, file, threads=threads)
        self._size, self._threads = size, threads

    def setup(self, device: str) -> None:
        """Once in each worker: open the runtime and warm it up."""
        self._runtime = self._open()
        self._decoders = ThreadPoolExecutor(self._threads)
        for count in (1, BATCH):
            self._runtime(np.zeros((count, self._size, self._size, 3), np.uint8))

    def decode_request(self, request: Annotated[Received, Depends(received)]) -> Received:
        """Left to `batch`, which sees the images of all requests and decodes them in threads."""
        return request

    def batch(self, inputs: Sequence[Received]) -> list[Decoded]:
        """The pixels of every request's images."""
        files = [_files(body, is_json=is_json) for body, is_json, _ in inputs]
        pixels = self._decoders.map(partial(decode, size=self._size), [file for some in files for file in some])
        return [([next(pixels) for _ in some], binary) for some, (_, _, binary) in zip(files, inputs, strict=True)]

    def predict(self, requests: Sequence[Decoded]) -> list[tuple[NDArray[np.float32], bool]]:
        """The embeddings of every request, (N, D)."""
        embeddings = run_in_passes(self._runtime, np.stack([image for images, _ in requests for image in images]))
        ends = np.cumsum([len(images) for images, _ in requests])
        parts = np.split(embeddings.embedding, ends[:-1])
        return [(part, binary) for part, (_, binary) in zip(parts, requests, strict=True)]

    def encode_response(self, output: tuple[NDArray[np.float32], bool]) -> Response:
        """JSON, or raw float32."""
        embeddings, binary = output
        if binary:
            return Response(embeddings.astype("<f4").tobytes(), media_type=ACCEPT["binary"])
        content = {"results": [{"embedding": embedding} for embedding in embeddings]}
        return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type=ACCEPT["json"])


def _files(body: bytes, *, is_json: bool) -> list[bytes]:
    if not is_json:
        return [body]
    return [base64.b64decode(image) for image in orjson.loads(body)["images"]]


def server(given: argparse.Namespace) -> Any:
    """LitServe as the arguments say."""
    threads = max(1, usable_cores() // given.workers)
    api = EmbeddingAPI(given.file, given.size, threads=threads)
    return litserve.LitServer(api, accelerator="cpu", workers_per_device=given.workers, fast_queue=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.litserve_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--file", type=Path, required=True, help="an exported graph")
    parser.add_argument("--size", type=int, required=True, help="pixels that it takes")
    parser.add_argument("--port", type=int, default=8000, help="on loopback (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that embed (default: %(default)s)")
    given = parser.parse_args(arguments)
    server(given).run(
        host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False, access_log=False
    )


if __name__ == "__main__":
    main()
