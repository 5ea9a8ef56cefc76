"""A process of `simclr bulk`: it takes a shard, embeds it, and takes the next.

Threads read and decode the images of the next passes while the runtime works on the present one, and a further
thread writes a shard while the next is begun. What makes up a pass follows from a shard's rows alone, so that the
same shard has the same bytes in every run on the same kind of machine with as many threads.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError, decode
from core.releases.manifest import FORMATS, Manifest, Release
from serving.inference.choice import choose
from serving.inference.runtime import Runtime, open_runtime
from serving.jobs.bulk.errors import RESUME, BulkError
from serving.jobs.bulk.job import read_job
from serving.jobs.bulk.listing import Entry, Listing
from serving.jobs.bulk.locks import Locks
from serving.jobs.bulk.records import ImageRecord
from serving.jobs.bulk.shards import ShardContent, finished_shard, publish_shard
from serving.jobs.bulk.sources import SourceFiles
from serving.jobs.parallel.ahead import loaded_ahead
from serving.jobs.parallel.member import Foreman, run_member
from serving.jobs.parallel.seats import Seat


@dataclass(frozen=True)
class Post:
    """Where a worker works and with what."""

    out: Path
    release: Path
    seat: Seat


class Loaded(NamedTuple):
    """An image that was read: its pixels uint8 (S, S, 3), or None and a record that says why not."""

    record: ImageRecord
    pixels: NDArray[np.uint8] | None


def work(post: Post, connection: Connection) -> None:
    """The process: embeds shards until there are no more."""
    expected = (BulkError, ValueError, OSError)
    run_member(connection, lambda foreman: Worker(post, foreman).run(), expected=expected, again=RESUME)


class Worker:
    """Embeds shards of the job in `post.out` until the foreman has no more."""

    def __init__(self, post: Post, foreman: Foreman) -> None:
        self._out = post.out
        self._foreman = foreman
        self._job = read_job(post.out)
        self._listing = Listing(post.out)
        self._locks = Locks(post.out)
        self._files = [SourceFiles(source) for source in self._job.sources]
        self._runtime, release = _opened(post, self._job.form, self._job.digest)
        self._size, self._margin = release.input.size, release.margin
        threads = max(2, post.seat.threads)
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._part = -(-self._job.batch // threads)  # images that a thread takes at once: one by one costs more
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._publishing: Future[None] | None = None

    def run(self) -> None:
        """Work until there are no more shards; those that other commands work on come last."""
        busy: list[int] = []
        while (shard := self._foreman.next_piece()) is not None:
            if self._locks.take(shard, wait=False):
                self._do(shard)
            else:
                busy.append(shard)
        for shard in busy:
            self._settle()  # or two commands could wait for each other
            self._locks.take(shard)
            self._do(shard)
        self._settle()

    def _do(self, shard: int) -> None:
        """Embed a shard that is locked, and have it written and unlocked while the next is embedded."""
        if finished_shard(self._out, shard) is not None:  # by another command
            self._locks.give(shard)
            self._foreman.report(len(self._job.rows(shard)))
            return
        content = self._embed(shard)
        self._settle()
        self._publishing = self._publisher.submit(self._publish, shard, content)

    def _embed(self, shard: int) -> ShardContent:
        entries = self._listing.rows(self._job.rows(shard))
        embeddings = np.empty((len(entries), self._job.embedding_dim), self._job.dtype)
        records: list[ImageRecord] = []
        filled = 0
        for loaded in self._loaded(entries):
            pixels = [image.pixels for image in loaded if image.pixels is not None]
            if pixels:
                embeddings[filled : filled + len(pixels)] = self._runtime(np.stack(pixels)).embedding
            filled += len(pixels)
            records += [image.record for image in loaded]
            self._foreman.report(len(loaded))
            if self._publishing is not None and self._publishing.done():
                self._settle()  # a full disk should stop it now, not at the shard's end
        return ShardContent(embeddings[:filled], records, self._runtime.name)

    def _loaded(self, entries: Sequence[Entry]) -> Iterator[list[Loaded]]:
        """The images of each pass; those of the next ones are read and decoded meanwhile."""
        starts = range(0, len(entries), self._job.batch)
        passes = (entries[start : start + self._job.batch] for start in starts)
        return loaded_ahead(passes, self._load, self._decoders, part=self._part)

    def _load(self, entry: Entry) -> Loaded:
        record, data = self._files[entry.source].read(entry.name)
        if data is None:
            return Loaded(record, None)
        try:
            return Loaded(record, decode(data, self._size, margin=self._margin))
        except ImageError as error:
            return Loaded(record._replace(error=str(error)), None)

    def _publish(self, shard: int, content: ShardContent) -> None:
        publish_shard(self._out, shard, content)
        self._locks.give(shard)

    def _settle(self) -> None:
        """Wait for the shard that is being written; raises what went wrong with it."""
        if self._publishing is not None:
            self._publishing.result()
            self._publishing = None


def _opened(post: Post, form: str, digest: str) -> tuple[Runtime, Manifest]:
    """The runtime of the job's release, and the release's manifest."""
    release = Release(post.release)
    if release.digest != digest:
        raise BulkError(f"{post.release} was replaced while the job ran: it has digest {release.digest}, not {digest}")
    seat = post.seat
    choice = choose(release, form=form, gpu=seat.gpu)
    path = release.file(FORMATS[form])
    runtime = open_runtime(path, device=choice.device, gpu=seat.gpu, threads=seat.threads)
    return runtime, release.manifest
