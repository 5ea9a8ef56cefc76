"""Real requests to a release that is registered but serves nobody yet, sent to the path that names its version.

What is wanted stands in the body, because that path drops the query.
Each must be answered by this release, with an embedding of the right length and unit norm that is the same every time.
"""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.releases.manifest import Manifest, Release
from serving.protocol.agreed import MODEL

_SECONDS = 60.0
_PER_WORKER = 2
_NORM_TOLERANCE = 1e-3
_SAME = 0.999  # cosine similarity; a pass over more cores adds up in another order


class CanaryError(RuntimeError):
    """The release did not answer as it must."""


def try_release(inference: Path, release: Release, workers: int, *, search: bool) -> None:
    """Ask TorchServe at its socket who answers, for embeddings, and with `search` for neighbours.

    Raises `CanaryError`.
    """
    try:
        _try(inference, release, workers, search=search)
    except (KeyError, ValueError, TypeError) as error:  # the archive brings its own code, perhaps an older one
        raise CanaryError(f"the canary's answer has an unknown form: {type(error).__name__} {error}") from error


def _try(inference: Path, release: Release, workers: int, *, search: bool) -> None:
    manifest = release.manifest
    address = f"http://torchserve/predictions/{MODEL}/{manifest.version}"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(inference)), timeout=_SECONDS) as http:
        digest = _ask(http, address, manifest, "describe")["digest"]
        if digest != release.digest:
            raise CanaryError(f"the canary was answered by digest {digest}, not {release.digest}")
        image = _picture(manifest.input.size)
        found = [_embedding(http, address, image, manifest) for _ in range(_PER_WORKER * workers)]
        least = min(float(found[0] @ other) for other in found)
        if not least >= _SAME:
            raise CanaryError(f"the same image has two embeddings whose cosine is {least:.4f}: workers differ")
        if search:
            _ask(http, address, manifest, "search", image)


def _embedding(http: httpx.Client, address: str, image: bytes, manifest: Manifest) -> NDArray[np.float64]:
    (result,) = _ask(http, address, manifest, "embed", image)["results"]
    embedding = np.array(result.get("embedding", ()), np.float64)
    if embedding.shape != (manifest.embedding_dim,):
        raise CanaryError(f"the canary's embedding has shape {embedding.shape}, not ({manifest.embedding_dim},)")
    norm = float(np.linalg.norm(embedding))
    if not abs(norm - 1) <= _NORM_TOLERANCE:  # so that NaN fails too
        raise CanaryError(f"the canary's embedding has norm {norm}, not 1")
    return embedding


def _ask(http: httpx.Client, address: str, manifest: Manifest, op: str, image: bytes | None = None) -> dict[str, Any]:
    said = {"op": op} if image is None else {"op": op, "image": base64.b64encode(image).decode()}
    try:
        reply = http.post(address, json=said)
    except httpx.TransportError as error:
        raise CanaryError(f"the canary {op} at {address} had no answer: {type(error).__name__} {error}") from error
    if reply.status_code != 200:
        raise CanaryError(f"the canary {op} at {address} was answered with {reply.status_code}: {reply.text[:300]}")
    found: dict[str, Any] = reply.json()
    if found["release"] != manifest.title:
        raise CanaryError(f"the canary {op} at {address} was answered by {found['release']}, not {manifest.title}")
    return found


def _picture(size: int) -> bytes:
    """An image file of coloured noise, the same always."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
