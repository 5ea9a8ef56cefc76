"""The peer without batching: a plain torch fp32 server, one image a request, its embedding as JSON.

    python -m benchmarks.serving.torch_server --release DIR [--port 8000]

The shape of Weaviate's img2vec container (FastAPI, POST /vectors with an image in base64, a model in eager mode behind
a lock, in a thread for each request), but without the file that the container writes for each image, which favours
it, and with this project's decoding, so that the embeddings can be compared.
"""

import argparse
import base64
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.tools.eager import eager_graph, embed
from core.images.decode import decode
from core.machine.machine import usable_cores
from core.releases.manifest import Release


class Image(BaseModel):
    """What is posted: a name, and an image file in base64."""

    id: str
    image: str


def application(release: Release) -> FastAPI:
    """The server: POST /vectors and GET /.well-known/ready."""
    torch.set_num_threads(usable_cores())
    graph, size = eager_graph(release), release.manifest.input.size
    embed(graph, np.zeros((1, size, size, 3), np.uint8))
    lock = threading.Lock()
    app = FastAPI()

    @app.get("/.well-known/ready", status_code=204)
    def ready() -> None:
        """It serves."""

    @app.post("/vectors")
    def vectors(image: Image) -> dict[str, Any]:
        """The embedding of one image."""
        pixels = decode(base64.b64decode(image.image), size)
        with lock:
            vector = embed(graph, pixels[None])[0]
        return {"id": image.id, "vector": vector.tolist(), "dim": len(vector)}

    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.torch_server", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--release", type=Path, required=True, help="folder of the release")
    parser.add_argument("--port", type=int, default=8000, help="on loopback (default: %(default)s)")
    given = parser.parse_args(arguments)
    uvicorn.run(application(Release(given.release)), host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
