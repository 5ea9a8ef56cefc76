"""The writer beside the searches of `benchmarks.search.ingest`: it upserts batches of 100 until it hears to stop.

Its vectors are those that are stored already, each moved a little, under new ids.
"""

import json
import sys
import threading
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np

from benchmarks.tools.filled import RELEASE, item
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.index.faiss.compaction import Policy, compact
from serving.collection.index.faiss.kinds import Plan
from serving.collection.index.interface import Sizes

_BATCH = 100


def main() -> None:
    """Write; with `compact`, build a base whenever it is due, in this process and meanwhile."""
    told = json.loads(sys.stdin.readline())
    faiss.omp_set_num_threads(1)
    catalogue = open_catalogue(Path(told["folder"]))
    stop = threading.Event()
    compactions: list[float] = []
    compactor = threading.Thread(target=_compact, args=(catalogue, stop, compactions), daemon=True)
    if told["compact"]:
        compactor.start()
    threading.Thread(target=_wait_for_word, args=(stop,), daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    done, start = _write(catalogue, stop)
    rate = done / (perf_counter() - start)
    if told["compact"]:
        compactor.join()
    print(json.dumps({"upserts_per_s": round(rate, 1), "compactions": len(compactions)}), flush=True)


def _wait_for_word(stop: threading.Event) -> None:
    sys.stdin.readline()
    stop.set()


def _write(catalogue: Catalogue, stop: threading.Event) -> tuple[int, float]:
    random = np.random.default_rng(catalogue.items.count())
    _, stored = catalogue.vectors.at(catalogue.vectors.census(RELEASE).rows[: 10 * _BATCH], RELEASE)
    number, done, start = catalogue.items.count(), 0, perf_counter()
    while not stop.is_set():
        vectors = stored[random.integers(len(stored), size=_BATCH)]
        vectors = vectors + random.standard_normal(vectors.shape, np.float32) * np.float32(
            0.2 / vectors.shape[1] ** 0.5
        )
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        catalogue.upsert([item(number + done + at) for at in range(_BATCH)], vectors, RELEASE)
        done += _BATCH
    return done, start


def _compact(catalogue: Catalogue, stop: threading.Event, compactions: list[float]) -> None:
    while not stop.is_set():
        base = catalogue.bases.get(RELEASE)
        assert base is not None
        if Policy().due(Sizes(base.count, 0, catalogue.items.count() - base.count)):
            compact(catalogue, RELEASE, Plan(kind=base.kind))
            compactions.append(perf_counter())
        stop.wait(0.05)


if __name__ == "__main__":
    main()
