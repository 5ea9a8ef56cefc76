"""Searches by vector over HTTP, in a collection of unit vectors that lie in clusters, as embeddings do.

The base is a graph whose depth reaches a recall@10 of 0.955 on trial queries. Queries are stored vectors moved by a
little noise, as JSON.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson

from benchmarks.serving import servers, wrk
from benchmarks.tools.filled import fill
from benchmarks.tools.random_release import write_random_release
from benchmarks.tools.usage import cpu_seconds
from core.machine.machine import default_workers
from export.publishing.archive import build_archive
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.kinds import Plan

_DIM, _PART, _CENTRES = 2048, 10_000, 500
_QUERIES, _CLIENTS = 500, 32
_PATH = "/v1/collections/default/search"


def searches(work: Path, add: Callable[[str, float], None], *, count: int, rounds: int, seconds: float) -> None:
    """Fill a collection of `count` vectors, serve it, and search; `add` is told every figure."""
    noise = np.random.default_rng(0).integers(256, size=(16, 32, 32, 3), dtype=np.uint8)
    release = write_random_release(work / "search", noise, architecture="resnet50", stem="small_stride2")
    catalogue = fill(work / "collection", _parts(count), count=count, release=release.space)
    compact(catalogue, release.space, Plan(kind="hnsw"))
    base = catalogue.bases.get(release.space)
    assert base is not None, "nobody else compacts it"
    add("search recall@10 of trial queries", base.recall or 0.0)
    archive = build_archive(release, work)
    requests = _requests(next(_parts(_QUERIES)))
    with servers.serving(archive, workers=default_workers(), form="onnx", collection=work / "collection") as running:
        wrk.load(running.port, requests, clients=_CLIENTS, seconds=3)
        for _ in range(rounds):
            alone = wrk.load(running.port, requests, clients=1, seconds=seconds)
            add("search p50 ms", alone.p50_ms)
            before = cpu_seconds(*running.pids)
            found = wrk.load(running.port, requests, clients=_CLIENTS, seconds=seconds)
            add("search requests/s", found.per_second)
            add("search ms of a core", 1000 * (cpu_seconds(*running.pids) - before) / max(found.requests, 1))
            add("search refused", found.refused + found.broken)


def _parts(count: int) -> Iterator[Vectors]:
    """`count` unit vectors (N, 2048) in clusters, the same always."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(_CENTRES, _DIM)).astype(np.float32)
    for start in range(0, count, _PART):
        size = min(_PART, count - start)
        step = random.normal(scale=0.7, size=(size, _DIM)).astype(np.float32)
        vectors = centres[random.integers(_CENTRES, size=size)] + step
        yield np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _requests(stored: Vectors) -> Sequence[bytes]:
    step = np.random.default_rng(2).normal(scale=0.005, size=stored.shape).astype(np.float32)
    bodies = [orjson.dumps({"vectors": [line], "k": 10}, option=orjson.OPT_SERIALIZE_NUMPY) for line in stored + step]
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % (_PATH.encode(), len(body)) + body for body in bodies]
