"""Our server beside the in-process ceiling, LitServe, and a plain torch server: throughput, latency, CPU, memory.

    python -m benchmarks.serving.serving --images cifar10-images.zip --release model_store/cifar10/1 [--quick]

In one run, in turn (A B C D A B C D ...), medians of the rounds; each server alone on the machine in its turn:

    ceiling    decoding and the same file in this project's own loop, with the best batch, threads and processes
    ours       TorchServe, as `serving.torchserve.launch` starts it
    litserve   LitServe with the same file (`benchmarks.serving.litserve_server`)
    torch      torch, fp32, no batches: the shape of Weaviate's img2vec container (`benchmarks.serving.torch_server`)
    bulk       `simclr bulk`

Closed loop (1, 16, 64 clients) and open loop (constant arrivals at 50% and 80% of what our server can do, latency from
the scheduled arrival); one image and 16 a request; 32 and 224 px; JSON and binary replies. The load generator is a
process of its own, and what it can do is printed. Prints a table and a last line of JSON; --quick has what the ratios
need, in under 5 minutes. Search is measured by `benchmarks.search.search`.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.serving.contest import Contest
from benchmarks.serving.load_limit import Limit, measure
from benchmarks.serving.ratios import extra_ms_of_one_client, ratios
from benchmarks.serving.requests_of import OURS, requests_of
from benchmarks.serving.rows import Row, median_rows, table
from benchmarks.serving.scenarios import PARTIES, QUICK_PLAN, Plan
from benchmarks.serving.subjects import LARGE, SMALL, Subject, add_subject_arguments, prepare
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.usage import busy_share
from core.command_line.command import main
from core.files.durable import publish_text
from core.machine.machine import default_workers, usable_cores

logger = logging.getLogger(__name__)

_BUSY = 0.2
_REPLY_BYTES = (8_192, 40_960)  # an embedding of 2,048 numbers, raw and as JSON, about
_LIBRARIES = ("torchserve", "litserve", "torch", "onnxruntime-gpu", "numpy", "pillow")


def compare(options: argparse.Namespace, work: Path) -> Figures:
    """Measure, print the table; returns the figures of the last line."""
    began, busy = time.monotonic(), busy_share(1.0)
    if busy > _BUSY:
        logger.warning("other processes keep %.0f%% of this machine busy: no figure below is worth much", 100 * busy)
    subjects = prepare(options, options.sizes, work=work)
    for subject in subjects.values():
        for note in subject.notes:
            logger.warning("%d px: %s", subject.size, note)
    limits = _generator_limits([*subjects.values()], seconds=min(2.0, options.plan.seconds))
    ours = {"workers": options.workers, "cache_mb": options.cache_mb}
    contest = Contest(subjects, options.plan, options.only, **ours, began=began)
    rows = median_rows(contest.run())
    figures = _figures(contest, rows)
    print(table(rows))
    print(_summary(figures, limits, contest=contest))
    return {
        **figures,
        "rows": [row.to_json() for row in rows],
        "chosen": contest.chosen,
        "least_cosine": {name: round(cosine, 6) for name, cosine in contest.cosines.items()},
        "generator": [asdict(limit) for limit in limits],
        "subjects": [_facts(subject) for subject in subjects.values()],
        "plan": asdict(options.plan) | {"rounds_done": contest.rounds, **ours},
        "machine": _machine() | {"busy_before": round(busy, 3)},
    }


def _figures(contest: Contest, rows: list[Row]) -> dict[str, Any]:
    px = {nominal: contest.subjects[nominal].size if nominal in contest.subjects else 0 for nominal in (SMALL, LARGE)}
    binary = ratios(rows, small=px[SMALL], large=px[LARGE], reply="binary")
    return {
        "ratios": ratios(rows, small=px[SMALL], large=px[LARGE]),
        "p50_extra_ms_one_client": extra_ms_of_one_client(rows, px[SMALL]),
        "ratios_of_binary_replies": {name: ratio for name, ratio in binary.items() if ratio is not None},
    }


def _generator_limits(subjects: Sequence[Subject], *, seconds: float) -> list[Limit]:
    requests = requests_of(OURS, subjects[0].jpegs, images=1, reply="json")
    return [measure(requests, size, seconds=seconds) for size in _REPLY_BYTES]


def _summary(figures: dict[str, Any], limits: Sequence[Limit], *, contest: Contest) -> str:
    lines = [f"{name:<34}{_shown(ratio):>8}" for name, ratio in figures["ratios"].items()]
    lines.append(f"{'p50_extra_ms_one_client':<34}{_shown(figures['p50_extra_ms_one_client']):>8}")
    for limit in limits:
        lines.append(
            f"load generator against an echo server, replies of {limit.reply_bytes} bytes: {limit.per_second:,.0f} "
            f"requests/s, {limit.cpu_us_per_request:.0f} us of CPU each"
        )
    lines += [f"{name}: {setting['best']} was the best of those tried" for name, setting in contest.chosen.items()]
    lines += [f"{subject.size} px: {note}" for subject in contest.subjects.values() for note in subject.notes]
    return "\n".join([f"medians of {contest.rounds} rounds", *lines])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _facts(subject: Subject) -> dict[str, Any]:
    return {
        "px": subject.size,
        "release": subject.release.manifest.title,
        "form": subject.form,
        "jpegs": len(subject.jpegs),
        "jpeg_bytes": round(sum(map(len, subject.jpegs)) / len(subject.jpegs)),
        "notes": subject.notes,
    }


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    libraries = {library: version(library) for library in _LIBRARIES}
    cpu = names[0] if names else platform.processor()
    return {"cores": usable_cores(), "cpu": cpu, "python": platform.python_version(), "libraries": libraries}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_subject_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="only what the ratios need, in under 5 minutes")
    parser.add_argument("--seconds", type=float, help="of each load")
    parser.add_argument("--rounds", type=int, help="how often each has its turn")
    parser.add_argument("--only", nargs="+", choices=PARTIES, help="some of the parties (--quick: all but bulk)")
    parser.add_argument("--sizes", nargs="+", type=int, choices=(SMALL, LARGE), default=[SMALL, LARGE], help="pixels")
    parser.add_argument("--workers", type=int, default=default_workers(), help="of our server (default: %(default)s)")
    parser.add_argument(
        "--cache-mb", type=int, default=0, help="of our server; the same images are sent again and again"
    )
    parser.add_argument("--work", type=Path, help="folder for what is built (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="file for the figures, as indented JSON")


def _measure(options: argparse.Namespace) -> Figures:
    plan = QUICK_PLAN if options.quick else Plan()
    changes = {name: getattr(options, name) for name in ("seconds", "rounds") if getattr(options, name) is not None}
    options.plan = replace(plan, **changes)
    options.only = options.only or options.plan.parties
    if options.work is not None:
        options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        figures = compare(options, Path(work))
    if options.out is not None:
        publish_text(options.out, json.dumps(figures, indent=1) + "\n")
    return figures


COMMAND = benchmark("benchmarks.serving.serving", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
