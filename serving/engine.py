"""The service without a server: embed, classify, search and describe, for many requests in one forward pass.

Nothing here knows TorchServe or HTTP; a status travels only as a number on an error. Each request fails or
succeeds alone, and so does each image of a request with several.
Left out: the shape of requests and answers (`serving.messages`), reading and writing them (`serving.wire`), and
changing the collection.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from serving.catalogue import Catalogue
from serving.choice import Choice, choose
from serving.embedder import Embedded, Embedder
from serving.embedding_cache import EmbeddingCache
from serving.encodings import ENCODINGS
from serving.images import ImageError
from serving.machine import usable_cores
from serving.manifest import FORMATS, Release
from serving.messages import MAX_IMAGES, MAX_K, OPS, Answer, Failure, Request, RequestError
from serving.neighbours import Neighbours, open_base
from serving.options import EngineOptions
from serving.runtime import Device, Outputs, images_of_pass, open_runtime

DEFAULT_OPTIONS = EngineOptions()
_LOG = logging.getLogger(__name__)


class Engine:
    """One release and, for searching, one collection that was embedded with it."""

    def __init__(
        self,
        release: Release,
        embedder: Embedder,
        choice: Choice,
        *,
        catalogue: Catalogue | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.manifest = release.manifest
        self.digest = release.digest
        self.choice = choice
        self._medians = release.medians()
        self._embedder = embedder
        self._catalogue = catalogue
        self._neighbours = neighbours

    @classmethod
    def open(
        cls,
        release: Path | str,
        collection: Path | str | None = None,
        *,
        device: Device = "auto",
        gpu: int = 0,
        options: EngineOptions = DEFAULT_OPTIONS,
    ) -> "Engine":
        """Open a release folder and a collection folder, and run the graph so that it is warm.

        Raises `ManifestError` for a release that does not verify or lacks the format asked for, `IndexUnusable` for a
        collection that was not embedded with this very release.
        """
        opened = Release(release)
        threads = options.threads or usable_cores()
        faiss.omp_set_num_threads(threads)
        catalogue = Catalogue(collection) if collection is not None else None
        neighbours = open_base(catalogue, opened.digest) if catalogue is not None else None
        choice = choose(opened, form=options.form, device=device, gpu=gpu)
        runtime = open_runtime(
            opened.file(FORMATS[choice.form]),
            device=choice.device,
            gpu=gpu,
            threads=threads,
            lock=Path(options.cores_lock) if options.cores_lock else None,
        )
        _LOG.info("%s: %s (%s)", opened.manifest.title, runtime.name, choice.why)
        cache = EmbeddingCache(options.cache_mb) if options.cache_mb else None
        size = opened.manifest.input.size
        per_pass = images_of_pass(size, gpu=choice.device == "cuda")
        embedder = Embedder(runtime, size, threads=threads, per_pass=per_pass, cache=cache)
        embedder.warm_up()
        return cls(opened, embedder, choice, catalogue=catalogue, neighbours=neighbours)

    def embed(self, images: NDArray[np.uint8]) -> Outputs:
        """Embeddings (N, D) and logits (N, C) of decoded images, uint8 (N, S, S, 3), N >= 1."""
        return self._embedder.pixels(images)

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
            "form": self.choice.form,
            "runtime": self._embedder.runtime_name,
            "why": self.choice.why,
            "encodings": [name for name in ENCODINGS if name != "binary" or self._medians is not None],
            "cache": self._embedder.cache.describe() if self._embedder.cache is not None else None,
            "collection": {"items": len(self._neighbours)} if self._neighbours is not None else None,
            "operations": [op for op in OPS if self._refusal(Request(op, images=(b"",))) is None],
            "limits": {
                "image_bytes": self._embedder.limits.max_bytes,
                "image_pixels": self._embedder.limits.max_pixels,
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
        if request.encoding == "binary" and self._medians is None:
            return RequestError(
                f"release {self.manifest.title} has no medians, which binary embeddings need: publish it again", 409
            )
        if not 1 <= request.k <= MAX_K:
            return RequestError(f"k is {request.k}; it must be from 1 to {MAX_K}")
        return None

    def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        embedded = self._embed_all(requests)
        found = self._search_all(requests, embedded)
        return [
            Answer(
                request.op, self.manifest.title, self._results(request, images, hits), request.encoding, self._medians
            )
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

    def _embed_all(self, requests: Sequence[Request]) -> list[list[Embedded]]:
        """For each request, per image its `Outputs` (D,), (C,) or the `ImageError` that it failed with."""
        flat = iter(self._embedder.files([image for request in requests for image in request.images]))
        return [[next(flat) for _ in request.images] for request in requests]

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
