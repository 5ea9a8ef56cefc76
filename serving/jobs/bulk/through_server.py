"""Embed files, folders and zips with a running server: what `simclr embed` does.

Several connections ask for up to 16 images at a time. The answers go to the file in the order of the images, so memory
holds a few requests however many there are. When a request fails because of an image, its images are asked for one by
one. Killed, it starts again from the beginning; `simclr bulk` goes on, and needs no server.
"""

import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from core.command_line.endings import conclude
from core.files.durable import publish_file
from core.files.rows_file import RowsWriter
from serving.client.client import Client, ServerError
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.listing import Entry, Listing, write_listing
from serving.jobs.bulk.records import ImageRecord, RecordsWriter
from serving.jobs.bulk.sources import NamedSource, SourceFiles, named

CONNECTIONS = 4
_IMAGES_PER_REQUEST = 16
_REQUESTS_AHEAD = 2  # for each connection
_REASONS_KEPT = 10
_OF_AN_IMAGE = frozenset({413, 415, 422})

Row = tuple[ImageRecord, NDArray[np.float32] | None]


@dataclass
class Tally:
    """What came of it: the number of images, how many of them were embedded, and why the first others were not."""

    images: int = 0
    embedded: int = 0
    dim: int = 0
    reasons: list[str] = field(default_factory=list)


class Group(NamedTuple):
    """What one request brings: a row for each image, and the release that embedded them."""

    rows: list[Row]
    releases: set[str]


def ids_file(out: Path) -> Path:
    """The file beside `out` that has the ids."""
    return out.with_suffix(".parquet")


def embed_paths(client: Client, paths: Sequence[str], out: Path, *, connections: int = CONNECTIONS) -> Tally:
    """Write `out`, float32 (n, D) .npy, and the ids beside it (`serving.jobs.bulk.records`), both whole or not at all.

    Raises `ServerError` if the server can't be reached or refuses for a reason that is no image's, `BulkError` if it
    changes its release meanwhile, `SourceError` for a path that can't be embedded, OSError if there is no room.
    """
    if out.suffix != ".npy":
        raise ValueError(f"--out is {out}; it must end in .npy")
    if connections < 1:
        raise ValueError(f"--connections is {connections}; it must be 1 or more")
    sources = named(paths)
    found: list[Tally] = []
    with tempfile.TemporaryDirectory() as scratch:
        write_listing(Path(scratch), sources)
        listing = Listing(Path(scratch))
        asking = _Asking(client, sources, listing, connections)
        publish_file(
            ids_file(out),
            lambda ids: publish_file(out, lambda rows: found.append(_write(rows, ids, asking))),
        )
        listing.close()
    return found[0]


class _Asking:
    """The listing's images, asked for over several connections, answered in order."""

    def __init__(self, client: Client, sources: Sequence[NamedSource], listing: Listing, connections: int) -> None:
        about = client.describe()
        self.release: str = about["release"]
        self.dim: int = about["embedding_dim"]
        self.images = len(listing)
        self._client = client
        self._files = [SourceFiles(source) for source in sources]
        self._listing = listing
        self._connections = connections

    def __iter__(self) -> Iterator[list[Row]]:
        pool = ThreadPoolExecutor(self._connections, thread_name_prefix="ask")
        try:
            for group in self._groups(pool):
                if group.releases - {self.release}:
                    raise BulkError(
                        f"the server went from release {self.release} to {', '.join(sorted(group.releases))} "
                        "meanwhile, and their embeddings don't compare: run it again"
                    )
                yield group.rows
        finally:
            pool.shutdown(cancel_futures=True)

    def _groups(self, pool: ThreadPoolExecutor) -> Iterator[Group]:
        ahead: deque[Future[Group]] = deque()
        for start in range(0, self.images, _IMAGES_PER_REQUEST):
            rows = range(start, min(self.images, start + _IMAGES_PER_REQUEST))
            ahead.append(pool.submit(self._group, self._listing.rows(rows)))
            if len(ahead) >= _REQUESTS_AHEAD * self._connections:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _group(self, entries: Sequence[Entry]) -> Group:
        read = [self._files[entry.source].read(entry.name) for entry in entries]
        good = [data for _, data in read if data is not None]
        rows, releases = self._embedded(good)
        answers = iter(rows)
        return Group(
            [(record, None) if data is None else _joined(record, next(answers)) for record, data in read], releases
        )

    def _embedded(self, images: list[bytes]) -> tuple[list[NDArray[np.float32] | ServerError], set[str]]:
        """Per image its embedding or the error that is its own."""
        if not images:
            return [], set()
        try:
            embeddings, release = self._client.embed_once(images)
        except ServerError as error:
            if error.status not in _OF_AN_IMAGE:
                raise
            if len(images) == 1:
                return [error], set()
            alone = [self._embedded([image]) for image in images]
            return [rows[0] for rows, _ in alone], set().union(*(releases for _, releases in alone))
        return list(embeddings), {release}


def _joined(record: ImageRecord, answer: NDArray[np.float32] | ServerError) -> Row:
    return (record._replace(error=str(answer)), None) if isinstance(answer, ServerError) else (record, answer)


def embed_command(
    client: Client, paths: Sequence[str], out: Path, *, connections: int = CONNECTIONS, as_json: bool = False
) -> int:
    """`embed_paths` as a command: says what came of it, and returns the exit code."""
    found = embed_paths(client, paths, out, connections=connections)
    left_out = found.images - found.embedded
    for reason in found.reasons:
        print(f"left out {reason}", file=sys.stderr)
    if left_out > len(found.reasons):
        print(f"(and {left_out - len(found.reasons):,} more: see `error` in {ids_file(out)})", file=sys.stderr)
    conclude(
        f"{out}: float32 ({found.embedded}, {found.dim}); ids: {ids_file(out)}, {left_out:,} unreadable",
        then=f"in Python, `numpy.load({str(out)!r})`; row n is that of the n-th readable image in {ids_file(out)}",
        as_json=as_json,
        out=out,
        ids=ids_file(out),
        images=found.images,
        embedded=found.embedded,
        dim=found.dim,
    )
    return 0 if found.embedded else 1


def _write(rows: Path, ids: Path, asking: _Asking) -> Tally:
    tally = Tally(asking.images, dim=asking.dim)
    with (
        open(rows, "wb") as matrix,
        open(ids, "wb") as table,
        RowsWriter(matrix, row=(asking.dim,), dtype=np.float32) as embeddings,
        RecordsWriter(table) as records,
        tqdm(total=asking.images, desc="embed", unit=" images") as bar,
    ):
        for found in asking:
            good = [embedding for _, embedding in found if embedding is not None]
            if good:
                embeddings.append(np.stack(good))
            records.append([record for record, _ in found])
            _count(tally, found)
            bar.update(len(found))
    return tally


def _count(tally: Tally, rows: Sequence[Row]) -> None:
    for record, embedding in rows:
        tally.embedded += embedding is not None
        if record.error is not None and len(tally.reasons) < _REASONS_KEPT:
            tally.reasons.append(f"{record.id}: {record.error}")
