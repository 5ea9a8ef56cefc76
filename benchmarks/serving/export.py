"""Every format of a release in every runtime, the model alone: images a second by batch, and the same answers?

    python -m benchmarks.serving.export --release model_store/cifar10/1 --images cifar10-images.zip

Torch in eager mode, TorchScript, ONNX Runtime with each file, and OpenVINO where it is installed; in turn, `--rounds`
times, medians. Parity is the mean and the least cosine with the eager graph on real images. Prints a table a release
and a last line of JSON. `benchmarks.serving.serving` measures decoding and serving;
`export.formats.fidelity` decides whether a format may be published.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.serving.ceiling_worker import decode_all
from benchmarks.serving.ways import Runner, ways_of
from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.jpegs import read_jpegs
from benchmarks.tools.turns import in_turn, medians
from core.command_line.command import main
from core.machine.machine import usable_cores
from core.releases.manifest import Release

logger = logging.getLogger(__name__)

Images = NDArray[np.uint8]
_PASS = 16


def compare(release: Release, options: argparse.Namespace) -> dict[str, Any]:
    """Rates and cosines of one release, by way of running it."""
    images = decode_all(read_jpegs(options.images, options.parity_images), release.manifest.input.size)
    ways, skipped = ways_of(release, threads=options.threads, device=options.device)
    embedded = {name: _embed(run, images) for name, run in ways.items()}
    cosines = {name: _cosines(embedded["torch eager fp32"], found) for name, found in embedded.items()}
    turns = {batch: _turns(ways, _first(images, batch), options=options) for batch in options.batches}
    rates = {batch: medians(of_batch) for batch, of_batch in turns.items()}
    return {
        "images_per_s": {name: {str(batch): round(rates[batch][name], 2) for batch in rates} for name in ways},
        "cosine": cosines,
        "skipped": skipped,
        "turns": {str(batch): of_batch for batch, of_batch in turns.items()},
    }


def images_per_second(run: Runner, images: Images, *, seconds: float) -> float:
    """One batch again and again, for `seconds`, after two to warm up."""
    for _ in range(2):
        run(images)
    done, start = 0, perf_counter()
    while perf_counter() - start < seconds:
        run(images)
        done += len(images)
    return done / (perf_counter() - start)


def _turns(ways: dict[str, Runner], some: Images, *, options: argparse.Namespace) -> dict[str, list[float]]:
    measures = {name: partial(images_per_second, run, some, seconds=options.seconds) for name, run in ways.items()}
    logger.info("batch %d: %s", len(some), ", ".join(ways))
    return in_turn(measures, options.rounds)


def _first(images: Images, count: int) -> Images:
    return np.resize(images, (count, *images.shape[1:]))


def _embed(run: Runner, images: Images) -> NDArray[np.float32]:
    return np.concatenate([run(images[at : at + _PASS]) for at in range(0, len(images), _PASS)])


def _cosines(exact: NDArray[np.float32], found: NDArray[np.float32]) -> dict[str, float]:
    cosine = (exact.astype(np.float64) * found).sum(axis=1)
    return {"mean": round(float(cosine.mean()), 7), "least": round(float(cosine.min()), 7)}


def table(title: str, figures: dict[str, Any]) -> str:
    """One release as text."""
    rates = figures["images_per_s"]
    batches = next(iter(rates.values()))
    lines = [
        f"{title:<28}" + "".join(f"{f'batch {batch}':>10}" for batch in batches) + f"{'mean cos':>12}{'least':>12}"
    ]
    for name, of_way in rates.items():
        cosine = figures["cosine"][name]
        cells = "".join(f"{rate:>10,.1f}" for rate in of_way.values())
        lines.append(f"{name:<28}{cells}{cosine['mean']:>12.7f}{cosine['least']:>12.7f}")
    return "\n".join([*lines, *(f"{name:<28}{'-':>10} {why}" for name, why in figures["skipped"].items())])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--release", type=Path, nargs="+", required=True, help="folders of releases")
    parser.add_argument("--images", type=Path, required=True, help="a folder or a zip with real JPEG files")
    parser.add_argument("--parity-images", type=int, default=256, help="compared with eager (default: %(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="images of a pass (1 4 16)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of a pass (default: every core)")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="auto", help="of the exported files")


def _measure(options: argparse.Namespace) -> Figures:
    torch.set_num_threads(options.threads)
    figures: Figures = {}
    for folder in options.release:
        release = Release(folder)
        title = release.manifest.title
        found = compare(release, options)
        print(table(title, found))
        for key, value in found.items():
            figures.setdefault(key, {})[title] = value
    return figures


COMMAND = benchmark("benchmarks.serving.export", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
