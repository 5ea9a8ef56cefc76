"""The service without a server: every operation, for many requests in one forward pass and one transaction.

Nothing here knows TorchServe or HTTP; a status travels only as a number on an error. Each request fails or
succeeds alone, and so does each image of a request with several. Of a batch, what is written is written first.
Left out: what the operations on a collection do (`serving.operations`); the shape of requests and answers, reading and
writing them (`serving.protocol`).
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError
from core.machine.machine import usable_cores
from core.releases.manifest import FORMATS, Release
from serving.collection.catalogue.filters import EVERYTHING
from serving.collection.drift.drift import Reference, drift
from serving.collection.errors import CollectionError
from serving.inference.choice import Choice, choose
from serving.inference.embedder import Embedded, Embedder
from serving.inference.embedding_cache import EmbeddingCache
from serving.inference.options import EngineOptions
from serving.inference.runtime import Device, Outputs, images_of_pass, open_runtime
from serving.operations.duplicates import duplicates
from serving.operations.failures import failure_of
from serving.operations.finding import Search, find_all
from serving.operations.opened import OpenCollection
from serving.operations.queries import ids_of, queries_of
from serving.operations.refusals import Abilities, refusal_of
from serving.operations.showing import get, list_items
from serving.operations.snapshots import list_snapshots, restore, save
from serving.operations.writing import write_all
from serving.protocol.agreed import MAX_IDS, MAX_IMAGES, MAX_K, MAX_LIMIT, MAX_OFFSET
from serving.protocol.encodings import ENCODINGS
from serving.protocol.messages import (
    OF_A_COLLECTION,
    WRITES,
    Answer,
    Failure,
    Request,
    RequestError,
)

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
        collection: OpenCollection | None = None,
    ) -> None:
        self.manifest = release.manifest
        self.digest = release.digest
        self.space = release.space
        self.choice = choice
        self._medians = release.medians()
        self._reference = Reference.of(release)
        self._embedder = embedder
        self.collection = collection
        if collection is not None:
            collection.embed_with(embedder.files_afresh)
        self._abilities = Abilities(
            self.manifest.title, self.manifest.classes is not None, self._medians is not None, collection is not None
        )

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
        """Open a release folder and a collection folder, which may be new, and run the graph so that it is warm.

        Raises `ManifestError` for a release that does not verify or lacks the format asked for, `CollectionError` for
        a collection that can't be used.
        """
        opened = Release(release)
        threads = options.threads or usable_cores()
        faiss.omp_set_num_threads(threads)
        held = OpenCollection(collection, opened.space, index=options.index) if collection is not None else None
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
        return cls(opened, embedder, choice, collection=held)

    def embed(self, images: NDArray[np.uint8]) -> Outputs:
        """Embeddings (N, D) and logits (N, C) of decoded images, uint8 (N, S, S, 3), N >= 1."""
        return self._embedder.pixels(images)

    def embed_files(self, images: Sequence[bytes]) -> list[Embedded]:
        """Per image file its `Outputs`, (D,) and (C,), or the `ImageError` that it failed with."""
        return self._embedder.files(images)

    def answer(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answer each request on its own, all their images in common forward passes, all writes in one transaction."""
        checked = [refusal_of(request, self._abilities) for request in requests]
        batch = [request for request, refusal in zip(requests, checked, strict=True) if refusal is None]
        answers = iter(self._answer(batch))
        return [refusal if refusal is not None else next(answers) for refusal in checked]

    def describe(self) -> dict[str, Any]:
        """What is being served: the release, how it runs, the collection, and the limits."""
        manifest = self.manifest
        return {
            "release": manifest.title,
            "digest": self.digest,
            "space": self.space,
            "architecture": manifest.architecture,
            "embedding_dim": manifest.embedding_dim,
            "image_size": manifest.input.size,
            "labels": list(manifest.classes) if manifest.classes is not None else None,
            "form": self.choice.form,
            "runtime": self._embedder.runtime_name,
            "why": self.choice.why,
            "encodings": [name for name in ENCODINGS if name != "binary" or self._medians is not None],
            "cache": self._embedder.cache.describe() if self._embedder.cache is not None else None,
            "collection": self.collection.describe() if self.collection is not None else None,
            "operations": self._abilities.operations,
            "limits": {
                "image_bytes": self._embedder.limits.max_bytes,
                "image_pixels": self._embedder.limits.max_pixels,
                "images_per_request": MAX_IMAGES,
                "ids_per_request": MAX_IDS,
                "k": MAX_K,
                "offset": MAX_OFFSET,
                "limit": MAX_LIMIT,
            },
        }

    def _answer(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        embedded = self._embed_all(requests)
        written = iter(self._write(requests, embedded))
        read = iter(self._read(requests, embedded))
        return [next(written) if request.op in WRITES else next(read) for request in requests]

    def _embed_all(self, requests: Sequence[Request]) -> list[list[Embedded]]:
        """For each request, per file its `Outputs` (D,), (C,) or the `ImageError` that it failed with."""
        flat = iter(self._embedder.files([file for request in requests for file in request.files]))
        return [[next(flat) for _ in request.files] for request in requests]

    def _write(
        self, requests: Sequence[Request], embedded: Sequence[Sequence[Embedded]]
    ) -> Sequence[Answer | RequestError]:
        writes = [pair for pair in zip(requests, embedded, strict=True) if pair[0].op in WRITES]
        if not writes:
            return []
        assert self.collection is not None
        of_writes, images = zip(*writes, strict=True)
        return write_all(self.collection, of_writes, images, self.manifest.title)

    def _read(
        self, requests: Sequence[Request], embedded: Sequence[Sequence[Embedded]]
    ) -> Sequence[Answer | RequestError]:
        """Everything but writes; what looks at the collection sees one moment of it."""
        reads = [pair for pair in zip(requests, embedded, strict=True) if pair[0].op not in WRITES]
        if self.collection is None or not any(_looks_at_collection(request) for request, _ in reads):
            return [self._one(request, images, []) for request, images in reads]
        try:
            with self._turn([request for request, _ in reads]):
                found = self._find(reads)
                return [self._one(*pair, hits) for pair, hits in zip(reads, found, strict=True)]
        except CollectionError as error:  # the collection can't be read at all: the rest is answered nonetheless
            failure = failure_of(error)
            return [
                failure if _looks_at_collection(request) else self._one(request, images, [])
                for request, images in reads
            ]

    def _turn(self, requests: Sequence[Request]) -> AbstractContextManager[None]:
        """A turn of the collection, in which it has what these requests look at."""
        assert self.collection is not None
        return self.collection.caught_up_turn() if any(map(_needs_vectors, requests)) else self.collection.turn()

    def _one(self, request: Request, images: Sequence[Embedded], found: list[Any]) -> Answer | RequestError:
        try:
            return self._answer_of(request, images, found)
        except RequestError as error:
            return error
        except CollectionError as error:
            return failure_of(error)

    def _answer_of(self, request: Request, images: Sequence[Embedded], found: list[Any]) -> Answer:
        title = self.manifest.title
        if request.op in ("embed", "classify", "search"):
            results = found if request.op == "search" else self._per_image(request, images, found)
            return Answer(request.op, title, results, request.encoding, self._medians)
        if request.op == "describe":
            return Answer(request.op, title, more=self.describe())
        assert self.collection is not None
        if request.op == "get":
            return Answer(request.op, title, get(self.collection, request))
        more = _OF_THE_WHOLE[request.op](self.collection, request)
        if "drift" in request.include:
            more["drift"] = drift(self.collection.catalogue, self._reference).to_json()
        return Answer(request.op, title, more=more)

    def _per_image(self, request: Request, images: Sequence[Embedded], found: list[Any]) -> list[Any]:
        shape = self._classified if request.op == "classify" else self._embedded
        results = [image if isinstance(image, ImageError) else shape(image) for image in images]
        for result, hits in zip(results, found, strict=bool(found)):
            if isinstance(result, dict):
                result["vote"] = hits["vote"] if isinstance(hits, dict) else None
        return results

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

    def _find(self, reads: Sequence[tuple[Request, Sequence[Embedded]]]) -> list[list[Any]]:
        """For each request, per query what was found or why nothing was."""
        assert self.collection is not None
        wanted = [request for request, _ in reads if _searches(request)]
        stored = self.collection.catalogue.vectors.of([name for one in wanted for name in ids_of(one)], self.space)
        dim = self.manifest.embedding_dim
        queries: list[list[Search | Failure]] = [
            [
                query if isinstance(query, ValueError) else Search(request, query)
                for query in (queries_of(request, images, stored, dim=dim) if _searches(request) else [])
            ]
            for request, images in reads
        ]
        found = iter(find_all(self.collection, [one for line in queries for one in line if isinstance(one, Search)]))
        return [[next(found) if isinstance(one, Search) else one for one in line] for line in queries]


def _searches(request: Request) -> bool:
    return request.op == "search" or (request.op == "classify" and "vote" in request.include)


def _needs_vectors(request: Request) -> bool:
    return _searches(request) or request.op == "duplicates" or "vector" in request.include


def _looks_at_collection(request: Request) -> bool:
    return request.op in OF_A_COLLECTION or _searches(request)


def _count(collection: OpenCollection, request: Request) -> dict[str, Any]:
    where = request.where if request.where is not None else EVERYTHING
    return {"count": collection.catalogue.items.count(where)}


_OF_THE_WHOLE: dict[str, Callable[[OpenCollection, Request], dict[str, Any]]] = {
    "list": list_items,
    "count": _count,
    "stats": lambda collection, request: collection.stats(),
    "duplicates": duplicates,
    "snapshot": save,
    "snapshots": list_snapshots,
    "restore": restore,
}


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())
