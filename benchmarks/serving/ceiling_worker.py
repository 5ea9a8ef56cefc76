"""One process of the in-process ceiling: decodes and embeds in a loop, without a server.

Started by `benchmarks.serving.ceiling`.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.child import hear_parent, tell_parent
from core.images.decode import decode
from serving.inference.runtime import Runtime, open_runtime

_AHEAD = 2  # batches decoded or being decoded while the runtime works on one
_WARM_UP_BATCHES = 3


def decode_all(jpegs: Sequence[bytes], size: int) -> NDArray[np.uint8]:
    """uint8 (N, S, S, 3)."""
    return np.stack([decode(data, size) for data in jpegs])


def overlapped(runtime: Runtime, jpegs: Sequence[bytes], *, order: dict[str, Any]) -> dict[str, Any]:
    """Images embedded within the order's seconds, in batches, while threads decode the next ones."""
    source = cycle(jpegs)
    batch, size = int(order["batch"]), int(order["size"])
    with ThreadPoolExecutor(order["threads"]) as decoders:
        ahead: deque[Future[NDArray[np.uint8]]] = deque()
        for _ in range(_AHEAD):
            ahead.append(decoders.submit(decode_all, [*islice(source, batch)], size))
        images, start, cpu = 0, perf_counter(), process_time()
        while perf_counter() - start < order["seconds"]:
            ahead.append(decoders.submit(decode_all, [*islice(source, batch)], size))
            runtime(ahead.popleft().result())
            images += batch
        return {"images": images, "seconds": perf_counter() - start, "cpu_seconds": process_time() - cpu}


def one_by_one(runtime: Runtime, jpegs: Sequence[bytes], *, order: dict[str, Any]) -> dict[str, Any]:
    """The ms of each image, decoded and embedded alone, for the order's seconds."""
    latencies = []
    start = perf_counter()
    for data in cycle(jpegs):
        began = perf_counter()
        runtime(decode_all([data], order["size"]))
        ended = perf_counter()
        latencies.append(1000 * (ended - began))
        if ended - start >= order["seconds"]:
            break
    return {"latencies_ms": latencies}


def main() -> None:
    """Get ready, wait for the word, measure."""
    heard = hear_parent()
    assert heard is not None
    order, jpegs = heard
    runtime = open_runtime(Path(order["file"]), threads=order["threads"])
    for _ in range(_WARM_UP_BATCHES):
        runtime(decode_all([*islice(cycle(jpegs), order["batch"])], order["size"]))
    tell_parent({"ready": runtime.name})
    if hear_parent() is not None:
        measure = overlapped if order["overlapped"] else one_by_one
        tell_parent(measure(runtime, jpegs, order=order))


if __name__ == "__main__":
    main()
