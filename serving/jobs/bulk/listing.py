"""The images of a job, in order, in two files: a line for each image, and where each line begins.

listing.jsonl has `[source, name]` on each line: the number of the source that the job names, and a name inside it.
listing.offsets.npy is int64 (N + 1,). Both are written as the sources are walked and read a shard at a time, so memory
does not grow with the number of images.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from core.files.durable import publish_file
from core.files.rows_file import RowsWriter
from core.images.folders import SourceError
from core.images.formats import SUFFIXES
from serving.jobs.bulk.sources import NamedSource, SourceFiles

LINES = "listing.jsonl"
OFFSETS = "listing.offsets.npy"
_WRITTEN_AT_ONCE = 4096  # offsets


class Entry(NamedTuple):
    """One image: the number of its source, and its name there."""

    source: int
    name: str


class Listing:
    """The listing in a folder, of which only the rows asked for are read."""

    def __init__(self, folder: Path) -> None:
        self._offsets = np.load(folder / OFFSETS, mmap_mode="r", allow_pickle=False)
        self._lines = open(folder / LINES, "rb")  # noqa: SIM115 (as long as the listing lives)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def rows(self, rows: range) -> list[Entry]:
        """The entries of some consecutive rows."""
        start, stop = int(self._offsets[rows.start]), int(self._offsets[rows.stop])
        found = os.pread(self._lines.fileno(), stop - start, start)
        return [Entry(*json.loads(line)) for line in found.splitlines()]

    def close(self) -> None:
        """Close the files."""
        self._lines.close()


def write_listing(folder: Path, sources: Sequence[NamedSource]) -> None:
    """List the images of `sources`, in their order, into `folder`; raises `SourceError` if there are none."""
    publish_file(
        folder / LINES,
        lambda lines: publish_file(folder / OFFSETS, lambda offsets: _write(lines, offsets, sources)),
    )


def _write(lines: Path, offsets: Path, sources: Sequence[NamedSource]) -> None:
    with (
        open(lines, "wb") as text,
        open(offsets, "wb") as numbers,
        RowsWriter(numbers, row=(), dtype=np.int64) as writer,
    ):
        place, waiting = 0, [0]
        for entry in tqdm(_entries(sources), desc="list", unit=" images"):
            place += text.write(json.dumps(entry, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            waiting.append(place)
            if len(waiting) >= _WRITTEN_AT_ONCE:
                writer.append(np.array(waiting))
                waiting = []
        if place == 0:
            raise SourceError(_nothing(sources))
        writer.append(np.array(waiting, np.int64))


def _entries(sources: Sequence[NamedSource]) -> Iterator[Entry]:
    for number, source in enumerate(sources):
        for name in SourceFiles(source).names():
            yield Entry(number, name)


def _nothing(sources: Sequence[NamedSource]) -> str:
    paths = ", ".join(source.path for source in sources)
    if sources[0].kind == "list":
        return f"{paths} lists no paths"
    return f"{paths}: no image files; accepted suffixes: {', '.join(sorted(SUFFIXES))}"
