"""Bulk embedding beside the in-process ceiling: images a second of `simclr bulk`, its start not counted.

The command embeds a folder twice, once with few and once with several times as many images; the difference of images
over the difference of seconds is its rate.
"""

import subprocess
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks.serving.subjects import Subject
from benchmarks.tools.child import ROOT, SIMCLR

_SHARDS = 16  # so that every process has some


class BulkFailed(RuntimeError):
    """`simclr bulk` ended with an error."""


def images_per_second(subject: Subject, *, expected: float, seconds: float) -> float:
    """Measured on as many images as take about `seconds` at the `expected` images a second."""
    few = max(_SHARDS, round(expected * seconds / 4))
    many = few + max(_SHARDS, round(expected * seconds))
    first, second = (_seconds(subject, count) for count in (few, many))
    if second <= first:
        raise BulkFailed(f"{many} images took {second:.1f} s and {few} took {first:.1f} s: measure for longer")
    return (many - few) / (second - first)


def _seconds(subject: Subject, count: int) -> float:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "images")
        folder.mkdir()
        for number, data in enumerate(islice(cycle(subject.jpegs), count)):
            (folder / f"{number:06}.jpg").write_bytes(data)
        start = time.perf_counter()
        _embed(subject, folder, out=Path(work, "out"), shard_size=-(-count // _SHARDS))
        return time.perf_counter() - start


def _embed(subject: Subject, folder: Path, *, out: Path, shard_size: int) -> None:
    release = subject.release.folder.resolve()
    command = [*SIMCLR, "bulk", str(folder), "--release", str(release), "--out", str(out)]
    command += ["--form", subject.form, "--shard-size", str(shard_size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BulkFailed(f"simclr bulk ended with code {done.returncode}: {done.stderr[-2000:]}")
