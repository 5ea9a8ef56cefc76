"""A process of `simclr reembed`: it takes a part of what waits in a space, embeds it, and takes the next part.

Threads read and decode the pictures of the next passes while the runtime works on the current one, and a further
thread stores what is embedded, some hundred items in a transaction.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError, decode
from core.images.folders import UnreachableFile, UnreadableFile
from core.releases.manifest import FORMATS, ManifestError, Release
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.spaces import Part, Pending
from serving.collection.catalogue.vectors import Vectors
from serving.collection.errors import CollectionError
from serving.collection.pictures.pending import PendingSources
from serving.inference.choice import choose
from serving.inference.runtime import images_of_pass, open_runtime
from serving.jobs.parallel.ahead import loaded_ahead
from serving.jobs.parallel.member import Foreman, run_member
from serving.jobs.parallel.seats import Seat
from serving.jobs.parallel.tasks import WorkError
from serving.jobs.reembed.errors import RESUME

TRANSACTION = 256  # items
_LISTED = 1024


@dataclass(frozen=True)
class Post:
    """Where a process works and with what; the items of the space are divided into `parts`."""

    collection: Path
    release: Path
    form: str
    parts: int
    seat: Seat


class Loaded(NamedTuple):
    """A picture that was read: its digest and pixels uint8 (S, S, 3), or why there are none."""

    pending: Pending
    sha256: bytes
    pixels: NDArray[np.uint8] | None
    error: str = ""


def work(post: Post, connection: Connection) -> None:
    """The process: embeds parts of the space until there are no more."""
    expected = (CollectionError, ManifestError, OSError, WorkError)
    run_member(connection, lambda foreman: Worker(post, foreman).run(), expected=expected, again=RESUME)


class Worker:
    """Embeds parts of the release's space until the foreman has no more."""

    def __init__(self, post: Post, foreman: Foreman) -> None:
        self._post = post
        self._foreman = foreman
        self._catalogue = open_catalogue(post.collection)
        self._sources = PendingSources(self._catalogue)
        release = Release(post.release)
        self._space = release.space
        self._size, self._margin = release.manifest.input.size, release.manifest.margin
        seat = post.seat
        choice = choose(release, form=post.form, gpu=seat.gpu)
        path = release.file(FORMATS[choice.form])
        self._runtime = open_runtime(path, device=choice.device, gpu=seat.gpu, threads=seat.threads)
        self._pass = images_of_pass(self._size, gpu=choice.device == "cuda")
        threads = max(2, seat.threads)
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._share = -(-self._pass // threads)
        self._storer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._storing: Future[int] | None = None

    def run(self) -> None:
        """Work until there are no more parts."""
        while (part := self._foreman.next_piece()) is not None:
            while self._embed(Part(part, self._post.parts)):  # again for what was written meanwhile
                pass

    def _embed(self, part: Part) -> bool:
        """Embed what waits in the part; False if nothing did."""
        done: list[tuple[Loaded, Vectors]] = []
        failed: list[tuple[Pending, str]] = []
        count = 0
        passes = self._passes(part)
        for loaded in loaded_ahead(passes, self._load, self._decoders, part=self._share):
            good = [image for image in loaded if image.pixels is not None]
            failed += [(image.pending, image.error) for image in loaded if image.pixels is None]
            if good:
                outputs = self._runtime(np.stack([image.pixels for image in good if image.pixels is not None]))
                done += zip([image._replace(pixels=None) for image in good], outputs.embedding, strict=True)
            count += len(loaded)
            if len(done) + len(failed) >= TRANSACTION:
                self._store_behind(done, failed)
                done, failed = [], []
        self._store_behind(done, failed)
        self._settle()
        return count > 0

    def _passes(self, part: Part) -> Iterator[list[Pending]]:
        after: Pending | None = None
        until = self._catalogue.last_write()
        while listed := self._catalogue.spaces.pending(self._space, limit=_LISTED, part=part, after=after, until=until):
            after = listed[-1]
            for at in range(0, len(listed), self._pass):
                yield listed[at : at + self._pass]

    def _load(self, pending: Pending) -> Loaded:
        """Raises `WorkError` for a picture that is out of reach: a lost disk would leave out everything."""
        try:
            picture = self._sources.read(pending)
            return Loaded(pending, picture.sha256, decode(picture.content, self._size, margin=self._margin))
        except UnreachableFile as error:
            raise WorkError(
                f"{pending.path} of item {pending.id!r} can't be read now: {error}; see that it can be, or delete the "
                f"item: {RESUME}"
            ) from error
        except (UnreadableFile, ImageError) as error:
            return Loaded(pending, b"", None, str(error))

    def _store_behind(self, done: list[tuple[Loaded, Vectors]], failed: list[tuple[Pending, str]]) -> None:
        self._settle()
        self._storing = self._storer.submit(self._store, done, failed)

    def _store(self, done: list[tuple[Loaded, Vectors]], failed: list[tuple[Pending, str]]) -> int:
        if done:
            rows = [image.pending.row for image, _ in done]
            vectors = np.stack([vector for _, vector in done])
            self._catalogue.spaces.fill(self._space, rows, [image.sha256 for image, _ in done], vectors)
        if failed:
            self._catalogue.spaces.fail(self._space, failed)
        return len(done) + len(failed)

    def _settle(self) -> None:
        """Wait for what is being stored, and report it; raises what went wrong."""
        if self._storing is not None:
            self._foreman.report(self._storing.result())
            self._storing = None
