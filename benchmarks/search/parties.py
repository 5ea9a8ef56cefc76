"""Who takes part in `benchmarks.search.search`: ours, FAISS used bare on the same index, and other libraries.

Every party is given the same vectors and returns the numbers (Q, k) of those it found, in their order of storing.
Graphs have 32 links and 40 candidates while building, all alike. Qdrant and Milvus are what their packages run inside
one process. `benchmarks.search.measure` measures them.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from usearch.index import Index as UsearchIndex

from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.faiss.base_files import BaseFiles
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import KINDS
from serving.collection.index.faiss.mapped_base import MappedBase

DEPTHS = (16, 20, 25, 32, 40, 50, 64, 80, 96, 112, 128, 160, 200)
_CELLS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 64)
_LINKS, _BUILD_DEPTH = 32, 40
_INSERTED = 500
Search = Callable[[Vectors, int, int, int], Rows]  # queries (Q, D), k, depth, threads -> numbers (Q, k)


@dataclass(frozen=True, eq=False)
class Party:
    """One that takes part: how it searches, at which depths; what building took, where it was built here."""

    name: str
    search: Search
    depths: tuple[int, ...]
    build_s: float | None = None
    megabytes: float | None = None
    slow: bool = False  # asked one batch, once, with the threads that it takes


def depths_of(kind: str) -> tuple[int, ...]:
    """The depths to search an index of this kind at."""
    return DEPTHS if kind == "hnsw" else _CELLS


def ours(neighbours: FaissIndex) -> Party:
    """The collection's own search; its base was built to one of the depths."""
    base = neighbours.base
    assert base is not None

    def search(queries: Vectors, k: int, depth: int, threads: int) -> Rows:
        faiss.omp_set_num_threads(threads)
        return neighbours.search(queries, k, depth=depth).rows - 1  # rows count from 1 in the order of storing

    return Party("ours", search, depths_of(base.kind), build_s=base.facts["seconds"])


def bare_faiss(folder: Path, mapped: MappedBase) -> Party:
    """The same index file read into memory; what FAISS returns is the answer, with no exact scores and no writes."""
    index = faiss.read_index(str(BaseFiles(folder / mapped.record.file).index))
    kind, numbers = KINDS[mapped.record.kind], mapped.rows - 1

    def search(queries: Vectors, k: int, depth: int, threads: int) -> Rows:
        faiss.omp_set_num_threads(threads)
        found = kind.search(index, queries, count=k, depth=depth, selector=None)[1]
        return np.where(found >= 0, numbers[found], -1)

    return Party("bare faiss", search, depths_of(kind.name))


def usearch_i8(vectors: Vectors) -> Party:
    """usearch with 8-bit codes."""
    began = time.perf_counter()
    index = UsearchIndex(
        ndim=vectors.shape[1], metric="cos", dtype="i8", connectivity=_LINKS, expansion_add=_BUILD_DEPTH
    )
    index.add(np.arange(len(vectors)), vectors)

    def search(queries: Vectors, k: int, depth: int, threads: int) -> Rows:
        setattr(index, "expansion_search", depth)  # noqa: B010 - its stub says read-only
        found = index.search(queries, k, threads=threads)
        return np.atleast_2d(np.asarray(found.keys)).astype(np.int64)

    took = time.perf_counter() - began
    return Party("usearch i8", search, DEPTHS, build_s=took, megabytes=index.memory_usage / 2**20)


def qdrant_local(vectors: Vectors) -> Party:
    """Qdrant's local mode: its client's own implementation in NumPy, which compares everything."""
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, QueryRequest, VectorParams

    began = time.perf_counter()
    client = QdrantClient(":memory:")  # on disk it syncs once a point
    client.create_collection("vectors", VectorParams(size=vectors.shape[1], distance=Distance.COSINE))
    client.upload_collection("vectors", vectors=vectors, ids=range(len(vectors)), batch_size=_INSERTED)

    def search(queries: Vectors, k: int, depth: int, threads: int) -> Rows:
        asked = [QueryRequest(query=query.tolist(), limit=k) for query in queries]
        found = client.query_batch_points("vectors", requests=asked)
        return np.array([[point.id for point in one.points] for one in found], np.int64)

    return Party("qdrant local", search, (1,), build_s=time.perf_counter() - began, slow=True)


def milvus_lite(vectors: Vectors, folder: Path) -> Party:
    """Milvus in one process, for who installs it (`pip install pymilvus milvus-lite`)."""
    from pymilvus import DataType, MilvusClient

    logging.getLogger("pymilvus").setLevel(logging.ERROR)
    began = time.perf_counter()
    client = MilvusClient(str(folder / "milvus.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    index = client.prepare_index_params()
    build = {"M": _LINKS, "efConstruction": _BUILD_DEPTH}
    index.add_index("vector", index_type="HNSW", metric_type="IP", params=build)
    client.create_collection("vectors", schema=schema, index_params=index)
    for start in range(0, len(vectors), _INSERTED):
        part = vectors[start : start + _INSERTED]
        client.insert("vectors", [{"id": start + at, "vector": vector} for at, vector in enumerate(part)])
    client.flush("vectors")
    client.load_collection("vectors")

    def search(queries: Vectors, k: int, depth: int, threads: int) -> Rows:
        found = client.search("vectors", list(queries), limit=k, search_params={"params": {"ef": depth}})
        return np.array([[hit["id"] for hit in one] for one in found], np.int64)

    took = time.perf_counter() - began
    return Party("milvus-lite", search, (16, 32, 64), build_s=took, slow=True)


PEERS: dict[str, Callable[[Vectors, Path], Party]] = {
    "usearch": lambda vectors, folder: usearch_i8(vectors),
    "qdrant": lambda vectors, folder: qdrant_local(vectors),
    "milvus": milvus_lite,
}


def truth_of(queries: Vectors, parts: Iterable[Vectors], k: int) -> Rows:
    """The numbers (Q, k) of the nearest by exact search through all parts, by FAISS's brute force."""
    scores, numbers, start = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), 0
    for part in parts:
        near, found = faiss.knn(
            queries, np.ascontiguousarray(part), min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT
        )
        scores, numbers = np.concatenate([scores, near], axis=1), np.concatenate([numbers, found + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, numbers = np.take_along_axis(scores, order, 1), np.take_along_axis(numbers, order, 1)
        start += len(part)
    return numbers
