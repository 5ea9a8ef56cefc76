"""The service without a server: every operation, for many requests in one forward pass and one transaction.

Nothing here knows TorchServe or HTTP; a status travels only as a number on an error. Each request fails or
succeeds alone, and so does each image of a request with several. Of a batch, what is written is written first.
Requests and answers are of `serving.protocol`; how each operation is answered is in `serving.operations`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from core.machine.machine import usable_cores
from core.releases.manifest import FORMATS, Release
from serving.collection.drift.drift import Reference
from serving.collection.errors import CollectionError
from serving.inference.choice import Choice, choose
from serving.inference.embedder import Embedded, Embedder
from serving.inference.embedding_cache import EmbeddingCache
from serving.inference.options import EngineOptions
from serving.inference.pixels import REQUEST_PIXELS
from serving.inference.runtime import Device, Outputs, images_of_pass, open_runtime
from serving.operations.answers import ANSWERS
from serving.operations.exchange import Exchange
from serving.operations.failures import failure_of, unforeseen
from serving.operations.finding import find_all
from serving.operations.opened import OpenCollection
from serving.operations.queries import ids_of
from serving.operations.refusals import begin, operations_of
from serving.operations.served import Served
from serving.operations.writing import write_all
from serving.protocol.agreed import MAX_HEAVY, MAX_IDS, MAX_IMAGES, MAX_K, MAX_KEYS, MAX_LIMIT, MAX_OFFSET
from serving.protocol.encodings import ENCODINGS
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import Request

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
        self._embedder = embedder
        self.collection = collection
        if collection is not None:
            collection.embed_with(embedder.files_afresh)
        self._served = Served(
            self.manifest.title,
            classes=self.manifest.classes,
            medians=release.medians(),
            reference=Reference.of(release),
            collection=collection,
            describe=self.describe,
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
        margin = opened.manifest.margin
        embedder = Embedder(runtime, size, threads=threads, per_pass=per_pass, cache=cache, margin=margin)
        embedder.warm_up()
        return cls(opened, embedder, choice, collection=held)

    def embed(self, images: NDArray[np.uint8]) -> Outputs:
        """Embeddings (N, D) and logits (N, C) of decoded images, uint8 (N, S, S, 3), N >= 1."""
        return self._embedder.pixels(images)

    def embed_files(self, images: Sequence[bytes]) -> list[Embedded]:
        """Per image file its `Outputs`, (D,) and (C,), or the `ImageError` that it failed with."""
        return self._embedder.files(images)

    def answer(self, requests: Sequence[Request]) -> list[Answer | RequestError]:
        """Answer each request on its own, all their images in common forward passes, all writes in one transaction.

        Raises nothing: what is unforeseen is a 500 of the request that caused it. Nothing is begun again once it may
        have been committed.
        """
        exchanges = begin(requests, self._served)
        _each_alone(self._embed_all, _pending(exchanges))
        self._write([one for one in _pending(exchanges) if one.operation.writes])
        _each_alone(self._read, [one for one in _pending(exchanges) if not one.operation.writes])
        return [one.answer for one in exchanges if one.answer is not None]

    def describe(self) -> dict[str, Any]:
        """What is being served: the release, how it runs, the collection, and the limits."""
        manifest = self.manifest
        return {
            "release": manifest.title,
            "created": manifest.created,
            "digest": self.digest,
            "space": self.space,
            "architecture": manifest.architecture,
            "embedding_dim": manifest.embedding_dim,
            "image_size": manifest.input.size,
            "labels": list(manifest.classes) if manifest.classes is not None else None,
            "form": self.choice.form,
            "runtime": self._embedder.runtime_name,
            "why": self.choice.why,
            "encodings": [name for name in ENCODINGS if name != "binary" or self._served.medians is not None],
            "cache": self._embedder.cache.describe() if self._embedder.cache is not None else None,
            "collection": self.collection.describe() if self.collection is not None else None,
            "operations": operations_of(self._served),
            "limits": {
                "image_bytes": self._embedder.limits.max_bytes,
                "image_pixels": self._embedder.limits.max_pixels,
                "images_per_request": MAX_IMAGES,
                "pixels_per_request": REQUEST_PIXELS,
                "ids_per_request": MAX_IDS,
                "keys_per_request": MAX_KEYS,
                "sample": MAX_HEAVY,
                "k": MAX_K,
                "offset": MAX_OFFSET,
                "limit": MAX_LIMIT,
            },
        }

    def _embed_all(self, exchanges: Sequence[Exchange[Any]]) -> None:
        """Embed the files of all of them together."""
        files = [one.request.files for one in exchanges]
        embedded = self._embedder.files([file for some in files for file in some])
        start = 0
        for one, some in zip(exchanges, files, strict=True):
            one.embedded = embedded[start : start + len(some)]
            start += len(some)

    def _write(self, exchanges: Sequence[Exchange[Any]]) -> None:
        """Carry out the writes, once: after an unforeseen error no one here knows whether they were committed."""
        if not exchanges:
            return
        assert self.collection is not None, "else they were refused"
        try:
            write_all(self.collection, exchanges, self.manifest.title)
        except Exception as error:
            _LOG.exception("%d writes failed", len(exchanges))
            for one in _pending(exchanges):
                one.answer = unforeseen(error)

    def _read(self, exchanges: Sequence[Exchange[Any]]) -> None:
        """Answer all but writes; what looks at the collection sees one moment of it."""
        looking = [one for one in exchanges if one.reads_collection]
        if looking:
            try:
                with self._turn(looking):
                    self._find([one for one in looking if one.searches])
                    for one in looking:
                        self._answer(one)
            except CollectionError as error:  # the collection can't be read at all
                failure = failure_of(error)
                for one in looking:
                    one.answer = failure
        for one in exchanges:
            if not one.reads_collection:
                self._answer(one)

    def _turn(self, exchanges: Sequence[Exchange[Any]]) -> AbstractContextManager[None]:
        """A turn of the collection, in which it has the vectors that these need."""
        assert self.collection is not None, "else they were refused"
        needs_vectors = any(one.needs_vectors for one in exchanges)
        return self.collection.caught_up_turn() if needs_vectors else self.collection.turn()

    def _find(self, searches: Sequence[Exchange[Any]]) -> None:
        """Find the neighbours of all their queries."""
        if searches:
            assert self.collection is not None, "else they were refused"
            stored = self.collection.catalogue.vectors.of(
                [name for one in searches for name in ids_of(one)], self.space
            )
            find_all(self.collection, searches, stored, dim=self.manifest.embedding_dim)

    def _answer(self, one: Exchange[Any]) -> None:
        try:
            one.answer = ANSWERS[type(one.request)](self._served, one)
        except RequestError as error:
            one.answer = error
        except CollectionError as error:
            one.answer = failure_of(error)
        except Exception as error:
            _LOG.exception("%s failed", one.request.op)
            one.answer = unforeseen(error)


def _pending(exchanges: Iterable[Exchange[Any]]) -> list[Exchange[Any]]:
    return [one for one in exchanges if one.answer is None]


def _each_alone(step: Callable[[Sequence[Exchange[Any]]], None], exchanges: Sequence[Exchange[Any]]) -> None:
    """A step that changes nothing, for all together; if something unforeseen breaks it, for one after the other."""
    try:
        step(exchanges)
    except Exception as error:
        _LOG.exception("a step of %d requests failed", len(exchanges))
        for one in _pending(exchanges):
            if len(exchanges) == 1:
                one.answer = unforeseen(error)
            else:
                _each_alone(step, [one])
