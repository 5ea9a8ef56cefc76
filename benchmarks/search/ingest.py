"""Writing to a collection with full durability: upserts a second by batch size, and what searching costs meanwhile.

    python -m benchmarks.search.ingest --embeddings EMBEDDED [--base 20000] [--seconds 5]

Every batch is one transaction, synced before it counts. Then a collection with a base is searched by this process, one
query at a time: alone, while another process upserts in batches of 100 as fast as it can, and while it compacts as
well. Latency includes looking for what was written since. Prints tables and a last line of JSON.
Neither HTTP nor embedding takes part; embedding takes far longer than storing (`benchmarks.serving.serving`).
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np

from benchmarks.tools.child import Child
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.embeddings import load_embeddings
from benchmarks.tools.filled import RELEASE, fill, item
from benchmarks.tools.turns import in_turn, medians
from core.command_line.command import main
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan

BATCHES = (1, 10, 100, 1000)


def upserts_per_second(folder: Path, vectors: Vectors, *, batch: int, seconds: float) -> float:
    """New items in batches for `seconds`; each item's picture is 1,000 bytes, kept."""
    catalogue = open_catalogue(folder, create=True)
    number, start = catalogue.items.count(), perf_counter()
    done = 0
    while perf_counter() - start < seconds:
        items = [item(number + done + at, kept=True) for at in range(batch)]
        catalogue.upsert(items, np.resize(np.roll(vectors, -done, 0)[:batch], (batch, vectors.shape[1])), RELEASE)
        done += batch
    return done / (perf_counter() - start)


def latencies(neighbours: FaissIndex, queries: Vectors, *, seconds: float) -> dict[str, float]:
    """Milliseconds of one query after the other, and the largest delta met."""
    taken: list[float] = []
    delta, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        at = len(taken) % len(queries)
        began = perf_counter()
        neighbours.search(queries[at : at + 1], 10)
        taken.append(1e3 * (perf_counter() - began))
        delta = max(delta, neighbours.sizes.delta)
    p50, p95, p99 = np.percentile(taken, [50, 95, 99]).round(3).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "searches": len(taken), "largest_delta": delta}


def while_ingesting(folder: Path, queries: Vectors, *, seconds: float) -> dict[str, dict[str, float]]:
    """Latencies alone, beside a writer, and beside a writer that compacts when it is due."""
    neighbours = FaissIndex(open_catalogue(folder), RELEASE)
    found = {"alone": latencies(neighbours, queries, seconds=seconds)}
    for name, compacting in (("while writing", False), ("writing and compacting", True)):
        with Child("benchmarks.search.ingest_child") as writer:
            writer.tell({"folder": str(folder), "compact": compacting})
            writer.hear()
            found[name] = latencies(neighbours, queries, seconds=seconds)
            writer.tell({})
            found_by_writer = writer.hear()
            found[name] |= {
                "upserts_per_s": found_by_writer["upserts_per_s"],
                "compactions": found_by_writer["compactions"],
            }
    return found


def run(options: argparse.Namespace, work: Path) -> Figures:
    """Everything; returns the last line."""
    embeddings = load_embeddings(options.embeddings)
    some = embeddings.stored[: max(BATCHES)]

    def rate(batch: int) -> float:
        return upserts_per_second(work / f"batch{batch}", some, batch=batch, seconds=options.seconds)

    turns = in_turn({str(batch): (lambda batch=batch: rate(batch)) for batch in BATCHES}, options.rounds)  # type: ignore[misc]
    rates = {name: round(value, 1) for name, value in medians(turns).items()}
    for name, value in rates.items():
        print(f"batches of {name:>5}: {value:>9,.0f} upserts/s")
    searched = work / "searched"
    catalogue = fill(searched, [embeddings.stored[: options.base]], count=options.base)
    compact(catalogue, RELEASE, Plan(kind=options.kind))
    found = while_ingesting(searched, embeddings.queries, seconds=options.seconds)
    for name, figures in found.items():
        print(f"{name:<24}" + ", ".join(f"{key} {value:,}" for key, value in figures.items()))
    return {"upserts_per_s": rates, "search_ms": found, "dim": some.shape[1], "base": options.base}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--embeddings", type=Path, required=True, help="a folder that simclr bulk wrote")
    parser.add_argument("--base", type=int, default=20_000, help="vectors of the base searched (default: %(default)s)")
    parser.add_argument("--kind", choices=("exact", "hnsw", "ivf"), default="hnsw", help="of it (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each batch size (default: %(default)s)")


def _measure(options: argparse.Namespace) -> Figures:
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        return run(options, Path(work))


COMMAND = benchmark("benchmarks.search.ingest", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
