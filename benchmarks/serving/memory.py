"""Does our server grow, and what does a second worker cost? Memory of all its processes, shared pages counted once.

    python -m benchmarks.serving.memory --images cifar10-images.zip --release model_store/cifar10/1 [--requests 100000]

First a server is sent `--requests` requests (images alone and 16 at a time, JSON and binary replies, and a broken file
now and then), and its memory is noted 20 times on the way: growth is the slope of the line through these, over all
requests. Then a server with one worker and one with two are sent the same few thousand. Prints what each process
holds and a last line of JSON.
"""

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import servers
from benchmarks.serving.load import Closed, Target, run
from benchmarks.serving.requests_of import OURS, http_request, requests_of
from benchmarks.serving.scenarios import SEVERAL
from benchmarks.serving.subjects import SMALL, Subject, add_subject_arguments, prepare
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.usage import Memory, memory
from core.command_line.command import main

logger = logging.getLogger(__name__)

CLIENTS = 16
SAMPLES = 20
_LONGEST = 86_400.0  # seconds: the number of requests ends a load


def growth(subject: Subject, *, requests: int) -> dict[str, Any]:
    """Memory of one worker's server over `requests` requests; what comes before the first sample is not counted."""
    part = max(1, requests // SAMPLES)
    held: list[Memory] = []
    errors: Counter[str] = Counter()
    with servers.ours(subject, workers=1) as running:
        target = Target(running.port, mixed_requests(subject.jpegs))
        for _ in range(SAMPLES + 1):
            errors.update(run(target, Closed(CLIENTS, seconds=_LONGEST, warm_up=0, requests=part)).errors)
            held.append(memory(*running.pids))
            logger.info("%d requests: %.1f MB", part * len(held), held[-1].pss)
    pss = [sample.pss for sample in held]
    return {
        "requests": part * SAMPLES,
        "pss_mb": [round(value, 1) for value in pss],
        "growth_mb": round(slope(pss) * SAMPLES, 1),
        "growth_mb_second_half": round(slope(pss[SAMPLES // 2 :]) * SAMPLES, 1),
        "by_process": {"first": held[0].pss_by_process, "last": held[-1].pss_by_process},
        "errors": dict(errors),
    }


def workers(subject: Subject, *, requests: int, counts: Sequence[int] = (1, 2)) -> dict[str, Any]:
    """Memory of a server with one worker and with two, each after the same requests."""
    found = {count: _after(subject, requests, workers=count) for count in counts}
    for count, held in found.items():
        print(f"{count} workers: {held.pss:,.0f} MB, shared pages counted once (RSS {held.rss:,.0f} MB)")
        _print_processes(held.pss_by_process)
    one, two = (found[count].pss for count in counts)
    return {
        "pss_mb": {str(count): round(held.pss, 1) for count, held in found.items()},
        "rss_mb": {str(count): round(held.rss, 1) for count, held in found.items()},
        "by_process": {str(count): held.pss_by_process for count, held in found.items()},
        "ratio": round(two / one, 3),
    }


def mixed_requests(jpegs: Sequence[bytes]) -> list[bytes]:
    """Requests of every kind in a fixed random order, one broken image among them."""
    single = requests_of(OURS, jpegs, images=1, reply="json")
    binary = requests_of(OURS, jpegs[: len(jpegs) // 4 + 1], images=1, reply="binary")
    several = requests_of(OURS, jpegs[: 2 * SEVERAL], images=SEVERAL, reply="json")
    broken = http_request(OURS, [jpegs[0][: len(jpegs[0]) // 2]], reply="json")
    mixed = [*single, *binary, *several, broken]
    random.Random(0).shuffle(mixed)
    return mixed


def slope(values: Sequence[float]) -> float:
    """The rise from one value to the next of the line that fits them best (least squares)."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


def _after(subject: Subject, requests: int, *, workers: int) -> Memory:
    with servers.ours(subject, workers=workers) as running:
        target = Target(running.port, mixed_requests(subject.jpegs))
        run(target, Closed(CLIENTS, seconds=_LONGEST, warm_up=0, requests=requests))
        return memory(*running.pids)


def _print_processes(pss: dict[str, float]) -> None:
    for process, held in pss.items():
        print(f"  {process:<30}{held:>8,.0f} MB")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject_arguments(parser)
    parser.add_argument("--requests", type=int, default=100_000, help="over which growth is (default: %(default)s)")
    parser.add_argument("--worker-requests", type=int, default=3_000, help="before workers are compared")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as work:
        subject = prepare(options, [SMALL], work=Path(work))[SMALL]
        figures = {
            "growth": growth(subject, requests=options.requests),
            "workers": workers(subject, requests=options.worker_requests),
        }
    grown = figures["growth"]
    print(
        f"over {grown['requests']:,} requests: {grown['growth_mb']:+.1f} MB "
        f"({grown['growth_mb_second_half']:+.1f} MB by the second half's slope), from {grown['pss_mb'][0]:,.0f} MB"
    )
    for moment, pss in grown["by_process"].items():
        print(f"{moment} sample, by process:")
        _print_processes(pss)
    print(f"two workers hold {figures['workers']['ratio']:.2f} times what one does")
    return figures


COMMAND = benchmark("benchmarks.serving.memory", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
