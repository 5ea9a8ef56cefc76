"""What a folder of embeddings is the answer to: job.json, written once, after the listing that it names.

A later run, or another task, must ask for the same; anything else is refused, because the folder would then hold
embeddings of different kinds. Any number of tasks may begin at once: one lists the images, the others wait for it.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from core.files.durable import publish_file, sha256_of
from core.releases.manifest import FileEntry, Release, entry_of
from serving.inference.choice import choose
from serving.inference.runtime import images_of_pass
from serving.jobs.bulk.errors import BulkError
from serving.jobs.bulk.listing import LINES, OFFSETS, Listing, write_listing
from serving.jobs.bulk.locks import job_locked
from serving.jobs.bulk.sources import NamedSource

SCHEMA = 1
FILE_NAME = "job.json"
_LOG = logging.getLogger(__name__)
_MOST_SHOWN = 3  # sources in a message
Dtype = Literal["float32", "float16"]


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A job: `images` in shards of `shard_size`, embedded with the release whose digest is `digest`."""

    schema: int
    release: str
    digest: str
    form: str
    embedding_dim: int
    dtype: Dtype
    batch: int
    shard_size: int
    sources: tuple[NamedSource, ...]
    images: int
    listing: FileEntry
    offsets: FileEntry

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.images // self.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of the listing that make up a shard."""
        return range(shard * self.shard_size, min(self.images, (shard + 1) * self.shard_size))


@dataclass(frozen=True)
class JobRequest:
    """What a command asks for; `form` auto and `batch` 0 are what suits here, or what the job was begun with."""

    release: Release
    sources: tuple[NamedSource, ...]
    form: str
    dtype: Dtype
    batch: int
    shard_size: int

    def __post_init__(self) -> None:
        for name, number, least in (("batch", self.batch, 0), ("shard-size", self.shard_size, 1)):
            if number < least:
                raise BulkError(f"--{name} is {number}; it must be {least} or more")


def open_job(out: Path, request: JobRequest, *, verify: bool = False) -> Job:
    """The job in `out`, begun if there is none; raises `BulkError` if it is not what `request` asks for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with job_locked(out):
            if (out / FILE_NAME).exists():
                job = read_job(out, verify=verify)
                _refuse_another(out, job, request)
                return job
            return _begin(out, request)
    except OSError as error:
        raise BulkError(f"can't begin the job in {out}: {error}") from error


def read_job(out: Path, *, verify: bool = False) -> Job:
    """The job in `out`; its listing is checked by size, or with `verify` by digest."""
    try:
        raw = (out / FILE_NAME).read_bytes()
    except FileNotFoundError:
        raise BulkError(f"{out} holds no embeddings: it has no {FILE_NAME}") from None
    job = _parse(raw, out)
    for name, entry in ((LINES, job.listing), (OFFSETS, job.offsets)):
        _check(out / name, entry, verify=verify)
    return job


def _begin(out: Path, request: JobRequest) -> Job:
    choice = choose(request.release, form=request.form)
    _LOG.info("%s runs as %s: %s", request.release.manifest.title, choice.form, choice.why)
    write_listing(out, request.sources)
    listing = Listing(out)
    job = Job(
        schema=SCHEMA,
        release=request.release.manifest.title,
        digest=request.release.digest,
        form=choice.form,
        embedding_dim=request.release.manifest.embedding_dim,
        dtype=request.dtype,
        batch=request.batch or images_of_pass(request.release.manifest.input.size, gpu=choice.device == "cuda"),
        shard_size=request.shard_size,
        sources=request.sources,
        images=len(listing),
        listing=entry_of(out / LINES),
        offsets=entry_of(out / OFFSETS),
    )
    listing.close()
    publish_struct(out / FILE_NAME, job)
    return job


def publish_struct(path: Path, struct: msgspec.Struct) -> None:
    """Put a struct as JSON in place of `path`: the same bytes for the same content."""
    text = msgspec.json.format(msgspec.json.encode(struct, order="sorted"), indent=2) + b"\n"
    publish_file(path, lambda partial: partial.write_bytes(text))


def _parse(raw: bytes, out: Path) -> Job:
    try:
        schema = msgspec.json.decode(raw, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise BulkError(f"{out} has a job of schema {schema!r}; this version reads {SCHEMA}: give another --out")
        return msgspec.json.decode(raw, type=Job)
    except msgspec.DecodeError as error:
        raise BulkError(f"{out / FILE_NAME} is broken: {error}; give another --out") from error


def _check(path: Path, entry: FileEntry, *, verify: bool) -> None:
    whole = path.is_file() and path.stat().st_size == entry.bytes and (not verify or sha256_of(path) == entry.sha256)
    if not whole:
        raise BulkError(f"{path} is missing or was changed since the job was begun: restore it, or give another --out")


def _refuse_another(out: Path, job: Job, request: JobRequest) -> None:
    for option, begun, now in _differences(job, request):
        raise BulkError(
            f"{out} was begun with {option} {begun}, and now it is {now}: "
            f"ask for what it was begun with, or give another --out"
        )


def _differences(job: Job, request: JobRequest) -> Iterator[tuple[str, object, object]]:
    """Every option that differs now: its name, its value then, its value now."""
    release = f"{request.release.manifest.title} (digest {request.release.digest})"
    settings = [
        ("--release", f"{job.release} (digest {job.digest})", release),
        ("--form", job.form, job.form if request.form == "auto" else request.form),
        ("--dtype", job.dtype, request.dtype),
        ("--batch", job.batch, request.batch or job.batch),
        ("--shard-size", job.shard_size, request.shard_size),
    ]
    yield from ((option, begun, now) for option, begun, now in settings if begun != now)
    if [source.identity() for source in job.sources] != [source.identity() for source in request.sources]:
        yield "the images of", _shown(job.sources), _shown(request.sources)


def _shown(sources: Sequence[NamedSource]) -> str:
    shown = "; ".join(" ".join(filter(None, source.identity())) for source in sources[:_MOST_SHOWN])
    return shown + (f"; and {len(sources) - _MOST_SHOWN} more" if len(sources) > _MOST_SHOWN else "")
