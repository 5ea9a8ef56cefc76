"""The service without a server: embed, classify, search and describe, for many requests in one forward pass.

Nothing here knows TorchServe or HTTP; a status travels only as a number on an error. Each request fails or
succeeds alone, and so does each image of a request with several.
Left out: the shape of requests and answers (`serving.messages`), reading and writing them (`serving.wire`), and
changing the collection.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.catalogue import Catalogue
from serving.images import DEFAULT_LIMITS, ImageError, Limits, decode
from serving.manifest import FORMATS, Release
from serving.messages import MAX_IMAGES, MAX_K, OPS, Answer, Failure, Request, RequestError
from serving.neighbours import Neighbours, open_base
from serving.runtime import Device, Outputs, Runtime, open_runtime, run_in_passes, usable_cores


class Engine:
    """One release and, for searching, one collection that was embedded with it."""

    def __init__(
        self,
        release: Release,
        runtime: Runtime,
        *,
        catalogue: Catalogue | None = None,
        neighbours: Neighbours | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.manifest = release.manifest
        self.digest = release.digest
        self.limits = limits
        self._runtime = runtime
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._decoders = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")

    @classmethod
    def open(
        cls,
        release: Path | str,
        collection: Path | str | None = None,
        *,
        form: str = "onnx",
        device: Device = "auto",
        gpu: int = 0,
        threads: int | None = None,
    ) -> "Engine":
        """Open a release folder and a collection folder, and run the graph once so that it is warm.

        `form` is one of `serving.manifest.FORMATS`.

        Raises `ManifestError` for a release that does not verify, `IndexUnusable` for a collection that was
        not embedded with this very release.
        """
        opened = Release(release)
        faiss.omp_set_num_threads(threads or usable_cores())
        catalogue = Catalogue(collection) if collection is not None else None
        neighbours = open_base(catalogue, opened.digest) if catalogue is not None else None
        runtime = open_runtime(opened.file(FORMATS[form]), device=device, gpu=gpu, threads=threads)
        engine = cls(opened, runtime, catalogue=catalogue, neighbours=neighbours)
        engine.embed(np.zeros((1, opened.manifest.input.size, opened.manifest.input.size, 3), np.uint8))
        return engine

    def embed(self, images: NDArray[np.uint8]) -> Outputs:
        """Embeddings (N, D) and logits (N, C) of decoded images, uint8 (N, S, S, 3), N >= 1."""
        return run_in_passes(self._runtime, images)

    def answer(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answer each request on its own, all their images in common forward passes."""
        checked = [self._refusal(request) for request in requests]
        batch = [request for request, refusal in zip(requests, checked, strict=True) if refusal is None]
        answers = iter(self._answer(batch) if batch else [])
        return [refusal if refusal is not None else next(answers) for refusal in checked]

    def describe(self) -> dict[str, Any]:
        """What is being served: the release, how it runs, the collection, and the limits."""
        manifest = self.manifest
        return {
            "release": manifest.title,
            "digest": self.digest,
            "architecture": manifest.architecture,
            "embedding_dim": manifest.embedding_dim,
            "image_size": manifest.input.size,
            "labels": list(manifest.classes) if manifest.classes is not None else None,
            "runtime": self._runtime.name,
            "collection": {"items": len(self._neighbours)} if self._neighbours is not None else None,
            "operations": [op for op in OPS if self._refusal(Request(op, images=(b"",))) is None],
            "limits": {
                "image_bytes": self.limits.max_bytes,
                "image_pixels": self.limits.max_pixels,
                "images_per_request": MAX_IMAGES,
                "k": MAX_K,
            },
        }

    def _refusal(self, request: Request) -> RequestError | None:
        """Why this request can't be answered at all, before any work is done on it."""
        asked = len(request.images) + len(request.ids) + len(request.vectors)
        if request.op == "describe":
            return None
        if request.op == "classify" and self.manifest.classes is None:
            return RequestError(
                f"release {self.manifest.title} has no linear probe, because its images had no labels", 409
            )
        if request.op == "search" and self._neighbours is None:
            return RequestError("the server was started without a collection: there is nothing to search", 409)
        if request.op != "search" and (request.ids or request.vectors):
            return RequestError(f"{request.op} takes images; ids and vectors are for search")
        if asked == 0:
            return RequestError(f"{request.op} needs at least one image" + _OR_QUERY.get(request.op, ""))
        if asked > MAX_IMAGES:
            return RequestError(f"{asked} images, ids and vectors in one request; at most {MAX_IMAGES}", 413)
        if not 1 <= request.k <= MAX_K:
            return RequestError(f"k is {request.k}; it must be from 1 to {MAX_K}")
        return None

    def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        embedded = self._embed_all(requests)
        found = self._search_all(requests, embedded)
        return [
            Answer(request.op, self.manifest.title, self._results(request, images, hits))
            for request, images, hits in zip(requests, embedded, found, strict=True)
        ]

    def _results(self, request: Request, images: list[Any], hits: list[Any]) -> list[Any]:
        if request.op == "describe":
            return [self.describe()]
        if request.op == "search":
            return _neighbours(request, hits)
        shape = self._classified if request.op == "classify" else self._embedded
        return [image if isinstance(image, ImageError) else shape(image) for image in images]

    @staticmethod
    def _embedded(image: Outputs) -> dict[str, Any]:
        return {"embedding": image.embedding}

    def _classified(self, image: Outputs) -> dict[str, Any]:
        assert self.manifest.classes is not None
        assert image.logits is not None
        probabilities = _softmax(image.logits)
        best = int(probabilities.argmax())
        named = dict(zip(self.manifest.classes, map(float, probabilities), strict=True))
        return {
            "label": self.manifest.classes[best],
            "probability": float(probabilities[best]),
            "probabilities": named,
        }

    def _embed_all(self, requests: Sequence[Request]) -> list[list[Any]]:
        """For each request, per image its `Outputs` (D,), (C,) or the `ImageError` that it failed with."""
        images = [image for request in requests for image in request.images]
        decoded = list(self._decoders.map(self._decode, images)) if len(images) > 1 else [*map(self._decode, images)]
        good = [array for array in decoded if not isinstance(array, ImageError)]
        outputs = self.embed(np.stack(good)) if good else None
        position = iter(range(len(good)))
        flat = iter([array if isinstance(array, ImageError) else _row(outputs, next(position)) for array in decoded])
        return [[next(flat) for _ in request.images] for request in requests]

    def _decode(self, data: bytes) -> NDArray[np.uint8] | ImageError:
        try:
            return decode(data, self.manifest.input.size, self.limits)
        except ImageError as error:
            return error

    def _search_all(self, requests: Sequence[Request], embedded: list[list[Any]]) -> list[list[Any]]:
        """For each request, per query its hits or why there are none: one FAISS call for the whole batch."""
        searches = [request for request in requests if request.op == "search"]
        queries = [
            self._queries(request, images) if request.op == "search" else []
            for request, images in zip(requests, embedded, strict=True)
        ]
        vectors = [query for of_one in queries for query in of_one if not isinstance(query, ValueError)]
        depth = 1 + max((request.k for request in searches), default=0)  # one more, as an id finds itself
        hits = iter(self._hits(vectors, depth))
        return [[query if isinstance(query, ValueError) else next(hits) for query in of_one] for of_one in queries]

    def _queries(self, request: Request, images: list[Any]) -> list[NDArray[np.float32] | Failure]:
        """Images first, then ids, then vectors: each a unit-norm float32 (D,) or the reason why not."""
        assert self._catalogue is not None
        stored = self._catalogue.vectors_of(request.ids, self.digest)
        by_image = [image if isinstance(image, ImageError) else image.embedding for image in images]
        by_id = [stored.get(name, RequestError(f"no item with id {name!r}", 404)) for name in request.ids]
        return [*by_image, *by_id, *map(self._unit, request.vectors)]

    def _unit(self, vector: NDArray[np.float32]) -> NDArray[np.float32] | RequestError:
        dim = self.manifest.embedding_dim
        if vector.shape != (dim,):
            return RequestError(f"a vector has {vector.size} numbers; release {self.manifest.title} has {dim}")
        norm = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(norm) or norm == 0.0:
            return RequestError(f"a vector has norm {norm}; it must be finite and above 0")
        return (vector / norm).astype(np.float32)

    def _hits(self, vectors: list[NDArray[np.float32]], depth: int) -> list[list[dict[str, Any]]]:
        if not vectors:
            return []
        assert self._catalogue is not None
        assert self._neighbours is not None
        found = self._neighbours.search(np.stack(vectors), depth)
        items = self._catalogue.items(map(int, found.rows.ravel()))
        return [
            [
                {"id": items[row].id, "score": float(score), "label": items[row].label}
                for row, score in zip(map(int, rows), scores, strict=True)
                if row in items
            ]
            for rows, scores in zip(found.rows, found.scores, strict=True)
        ]


_OR_QUERY = {"search": ", id or vector"}


def _row(outputs: Outputs | None, position: int) -> Outputs:
    assert outputs is not None
    logits = outputs.logits[position] if outputs.logits is not None else None
    return Outputs(outputs.embedding[position], logits)


def _neighbours(request: Request, hits: list[Any]) -> list[Any]:
    """Cut each query's hits to k, an id without itself."""
    names = [*[None] * len(request.images), *request.ids, *[None] * len(request.vectors)]
    return [
        hit if isinstance(hit, ValueError) else {"neighbours": [n for n in hit if n["id"] != name][: request.k]}
        for name, hit in zip(names, hits, strict=True)
    ]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())
