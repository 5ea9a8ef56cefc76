"""Embed files, folders and zips with a running server: what `python -m serving.client embed` does.

Several connections ask for up to 16 images at a time; the answers go to the file in the order of the images, so
that memory holds a few requests whatever their number. Of a request that fails for an image, every image is asked
for alone. Left out: going on after a kill, which `python -m serving.bulk` does, without a server.
"""

import signal
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

from core.files.durable import publish_file
from core.files.rows_file import RowsWriter
from core.images.folders import SourceError
from serving.client.client import Client, ServerError
from serving.client.patience import patiently
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.listing import Entry, Listing, write_listing
from serving.jobs.bulk.records import Record, RecordsWriter
from serving.jobs.bulk.sources import Source, SourceFiles, named

CONNECTIONS = 4
_IMAGES_PER_REQUEST = 16
_REQUESTS_AHEAD = 2  # for each connection
_REASONS_KEPT = 10
_OF_AN_IMAGE = frozenset({413, 415, 422})

Answer = tuple[Record, NDArray[np.float32] | None]


@dataclass
class Summary:
    """What came of it: how many images there are, how many were embedded, and the first that could not be."""

    images: int = 0
    embedded: int = 0
    dim: int = 0
    reasons: list[str] = field(default_factory=list)


class Group(NamedTuple):
    """What one request brings: its images' answers, and the release that gave them, if any was."""

    answers: list[Answer]
    releases: set[str]


def ids_file(out: Path) -> Path:
    """Where the ids of `out` go."""
    return out.with_suffix(".parquet")


def embed_paths(client: Client, paths: Sequence[str], out: Path, *, connections: int = CONNECTIONS) -> Summary:
    """Write `out`, float32 (n, D) .npy, and the ids beside it (`serving.jobs.bulk.records`), both whole or not at all.

    Raises `ServerError` if the server can't be reached or refuses for a reason that is no image's, `BulkError` if it
    changes its release meanwhile, `SourceError` for a path that is none, OSError if there is no room.
    """
    if out.suffix != ".npy":
        raise BulkError(f"--out is {out}; it must end in .npy")
    if connections < 1:
        raise BulkError(f"--connections is {connections}; it must be 1 or more")
    sources = named(paths)
    found: list[Summary] = []
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

    def __init__(self, client: Client, sources: Sequence[Source], listing: Listing, connections: int) -> None:
        about = client.describe()
        self.release: str = about["release"]
        self.dim: int = about["embedding_dim"]
        self.images = len(listing)
        self._client = client
        self._files = [SourceFiles(source) for source in sources]
        self._listing = listing
        self._connections = connections

    def __iter__(self) -> Iterator[list[Answer]]:
        pool = ThreadPoolExecutor(self._connections, thread_name_prefix="ask")
        try:
            for group in self._groups(pool):
                if group.releases - {self.release}:
                    raise BulkError(
                        f"the server went from release {self.release} to {', '.join(sorted(group.releases))} "
                        "meanwhile, whose embeddings don't compare: ask again"
                    )
                yield group.answers
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
            embeddings, release = patiently(lambda: self._client.embed_once(images))
        except ServerError as error:
            if error.status not in _OF_AN_IMAGE:
                raise
            if len(images) == 1:
                return [error], set()
            alone = [self._embedded([image]) for image in images]
            return [rows[0] for rows, _ in alone], set().union(*(releases for _, releases in alone))
        return list(embeddings), {release}


def _joined(record: Record, answer: NDArray[np.float32] | ServerError) -> Answer:
    return (record._replace(error=str(answer)), None) if isinstance(answer, ServerError) else (record, answer)


def embed_command(client: Client, paths: Sequence[str], out: Path, *, connections: int) -> int:
    """`embed_paths` as a command: says what came of it, and returns the exit code."""
    try:
        summary = embed_paths(client, paths, out, connections=connections)
    except (BulkError, SourceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped: nothing of {out} is kept", file=sys.stderr)
        return 128 + signal.SIGINT
    for reason in summary.reasons:
        print(f"left out {reason}", file=sys.stderr)
    left_out = summary.images - summary.embedded
    if left_out > len(summary.reasons):
        print(f"(and {left_out - len(summary.reasons)} more: see `error` in {ids_file(out)})", file=sys.stderr)
    print(f"{out}: float32 ({summary.embedded}, {summary.dim}); ids: {ids_file(out)}, {left_out} unreadable")
    return 0 if summary.embedded else 1


def _write(rows: Path, ids: Path, asking: _Asking) -> Summary:
    summary = Summary(asking.images, dim=asking.dim)
    with (
        open(rows, "wb") as matrix,
        open(ids, "wb") as table,
        RowsWriter(matrix, row=(asking.dim,), dtype=np.float32) as embeddings,
        RecordsWriter(table) as records,
        tqdm(total=asking.images, desc="embed", unit=" images") as bar,
    ):
        for answers in asking:
            good = [embedding for _, embedding in answers if embedding is not None]
            if good:
                embeddings.append(np.stack(good))
            records.append([record for record, _ in answers])
            _count(summary, answers)
            bar.update(len(answers))
    return summary


def _count(summary: Summary, answers: Sequence[Answer]) -> None:
    for record, embedding in answers:
        summary.embedded += embedding is not None
        if record.error is not None and len(summary.reasons) < _REASONS_KEPT:
            summary.reasons.append(f"{record.id}: {record.error}")
