"""A worker of `benchmarks.search.search`: it opens and searches a collection as a server's worker does.

It says how much memory it holds, split by what is mapped: the index, the vectors, the rest.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.base_files import INDEX, VECTORS
from serving.collection.index.faiss.index import FaissIndex

_MIB = 1024  # kB


def main() -> None:
    """Answer each message: `open` a folder, `search` vectors that follow as bytes, tell `memory`."""
    neighbours: FaissIndex | None = None
    while line := sys.stdin.buffer.readline():
        message = json.loads(line)
        if message["do"] == "open":
            faiss.omp_set_num_threads(message["threads"])
            before = private_mb()
            neighbours = FaissIndex(open_catalogue(message["folder"]), message["release"])
            answer: dict[str, Any] = {"live": len(neighbours), "before_mb": before}
        elif message["do"] == "search":
            assert neighbours is not None
            queries = _read_vectors(sys.stdin.buffer, message)
            for start in range(0, len(queries), 100):
                found = neighbours.search(queries[start : start + 100], 10)
            answer = {"found": found.rows[-1].tolist()}
        else:
            answer = mapped_mb()
        print(json.dumps(answer), flush=True)


def mapped_mb() -> dict[str, float]:
    """MB of this process by sort: `pss` divides a page among those that map it, `rss` counts it in full."""
    held = {f"{of}_{sort}": 0.0 for of in ("pss", "rss") for sort in ("index", "vectors", "other")}
    sort = "other"
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            sort = "index" if line.endswith(INDEX) else "vectors" if line.endswith(VECTORS) else "other"
        elif line.startswith(("Pss:", "Rss:")):
            held[f"{line[:3].lower()}_{sort}"] += int(line.split()[1]) / _MIB
    return held


def private_mb() -> float:
    """MB that are this process's alone and of no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / _MIB for line in lines if line.startswith("Anonymous:"))


def _read_vectors(source: BinaryIO, message: dict[str, Any]) -> Vectors:
    (size,) = message["parts"]
    return np.frombuffer(source.read(size), np.float32).reshape(-1, message["dim"])


if __name__ == "__main__":
    main()
