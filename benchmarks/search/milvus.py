"""Search through Milvus beside the same search through FAISS: latency, recall, and how long sending takes.

    python -m benchmarks.search.milvus --embeddings EMBEDDED [--count 10000] [--milvus URI]

EMBEDDED is what `simclr bulk IMAGES --out EMBEDDED` wrote; queries are real images that are not stored.
Without `--milvus`, milvus-lite runs as a server of its own, as several workers need it. One query at a time, both by
the collection's own search with its exact scores; then a filter of half of the rows, and one write with the search
after it. Milvus without our search around it is measured by `benchmarks.search.search --peers milvus`.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.search.parties import truth_of
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.embeddings import load_embeddings
from core.command_line.command import main
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.index.choice import IndexChoice
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.interface import Index
from serving.collection.index.opening import open_milvus

_RELEASE = "a" * 64
_WRITTEN_AT_ONCE = 500
_WRITES = 50


def measure(index: Index, catalogue: Catalogue, queries: Vectors, truth: Rows) -> dict[str, Any]:
    """Milliseconds of the median search, and recall at 10."""
    half = np.arange(1, len(index) + 1, 2)
    found = [index.search(query[None], 10).rows[0] - 1 for query in queries]
    hits = [np.isin(line, best).mean() for line, best in zip(found, truth, strict=True)]

    def write_and_search(query: Vectors) -> None:
        catalogue.upsert([_item("fresh")], query, _RELEASE)
        index.search(query, 10)

    return {
        "recall_at_10": round(float(np.mean(hits)), 4),
        "search_ms": _median_ms(lambda query: index.search(query, 10), queries),
        "half_filtered_ms": _median_ms(lambda query: index.search(query, 10, rows=half), queries[:_WRITES]),
        "exact_ms": _median_ms(lambda query: index.search(query, 10, exact=True), queries[:10]),
        "write_and_search_ms": _median_ms(write_and_search, queries[:_WRITES]),
    }


def _median_ms(call: Callable[[Vectors], object], queries: Vectors) -> float:
    taken = []
    for query in queries:
        began = time.perf_counter()
        call(query[None])
        taken.append(time.perf_counter() - began)
    return round(1000 * float(np.median(taken)), 2)


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """A milvus-lite server on loopback; its address."""
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        port = handle.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder / "milvus.db")]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with socket.socket() as handle:
                if handle.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _fill(catalogue: Catalogue, vectors: Vectors) -> None:
    for start in range(0, len(vectors), _WRITTEN_AT_ONCE):
        part = vectors[start : start + _WRITTEN_AT_ONCE]
        catalogue.upsert([_item(f"n{start + at}") for at in range(len(part))], part, _RELEASE)


def _item(name: str) -> Item:
    return Item(name, Source.kept(name.encode(), "image/png"), None, {})


def _both(catalogue: Catalogue, uri: str, queries: Vectors, truth: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("exact", "hnsw"):
        began = time.perf_counter()
        compact(catalogue, _RELEASE, Plan(kind=kind))
        built = time.perf_counter() - began
        neighbours = FaissIndex(catalogue, _RELEASE)
        yield f"faiss {kind}", {"built_s": round(built, 2), **measure(neighbours, catalogue, queries, truth)}
        neighbours.close()
        catalogue.delete(["fresh"])
    began = time.perf_counter()
    index = open_milvus(catalogue, _RELEASE, IndexChoice.parse(f"milvus:{uri}"))
    built = time.perf_counter() - began
    yield "milvus", {"built_s": round(built, 2), **measure(index, catalogue, queries, truth)}
    index.close()


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--embeddings", type=Path, required=True, help="a folder that simclr bulk wrote")
    parser.add_argument("--count", type=int, default=10_000, help="vectors stored (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--milvus", metavar="URI", help="a running Milvus (default: milvus-lite as a server)")


def _measure(options: argparse.Namespace) -> Figures:
    faiss.omp_set_num_threads(1)
    real = load_embeddings(options.embeddings, queries=options.queries)
    vectors = np.ascontiguousarray(real.stored[: options.count])
    truth = truth_of(real.queries, [vectors], 10)
    with tempfile.TemporaryDirectory() as work, milvus_lite(Path(work)) as local:
        catalogue = open_catalogue(Path(work), create=True)
        _fill(catalogue, vectors)
        figures = {}
        for name, figure in _both(catalogue, options.milvus or local, real.queries, truth):
            print(f"{name}: {json.dumps(figure)}", flush=True)
            figures[name] = figure
    return {"vectors": len(vectors), "dim": vectors.shape[1], **figures}


COMMAND = benchmark("benchmarks.search.milvus", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
