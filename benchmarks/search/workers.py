"""Processes that serve one collection: seconds from a process's start to its first answer, and what two of them hold.

Cold means that the collection's files were dropped from the page cache before. Neither HTTP nor an encoder takes part.
"""

import os
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.tools.child import Child
from benchmarks.tools.filled import RELEASE
from serving.collection.catalogue.vectors import Vectors

_MODULE = "benchmarks.search.child"


def first_search(folder: Path, queries: Vectors, *, cold: bool) -> float:
    """Seconds until a new process, interpreter and imports included, has opened the collection and searched once."""
    if cold:
        _drop(folder)
    start = perf_counter()
    with Child(_MODULE) as worker:
        _open(worker, folder)
        _search(worker, queries[:1])
        return perf_counter() - start


def two_workers(folder: Path, queries: Vectors) -> dict[str, Any]:
    """MB of one worker, then of each of two, after the same searches; and what one took of its own by opening."""
    with ExitStack() as running:
        held: dict[str, Any] = {}
        workers: list[Child] = []
        for count in (1, 2):
            workers.append(running.enter_context(Child(_MODULE)))
            before = _open(workers[-1], folder)["before_mb"]
            _search(workers[-1], queries)
            held[str(count)] = [_ask(worker, {"do": "memory"}) for worker in workers]
            held["before_mb"] = before
    return held


def _open(worker: Child, folder: Path) -> dict[str, Any]:
    return _ask(worker, {"do": "open", "folder": str(folder.resolve()), "release": RELEASE, "threads": 1})


def _search(worker: Child, queries: Vectors) -> None:
    worker.tell({"do": "search", "dim": queries.shape[1]}, [queries.tobytes()])
    worker.hear()


def _ask(worker: Child, message: dict[str, Any]) -> dict[str, Any]:
    worker.tell(message)
    return worker.hear()


def _drop(folder: Path) -> None:
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
