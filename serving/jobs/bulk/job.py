"""What a folder of embeddings is the answer to: job.json, written once, after the listing that it names.

A later run, or another task, must ask for the same; anything else is refused, because the folder would then hold
embeddings of different kinds. Any number of tasks may begin at once: one lists, the others wait for it.
Left out: which task does what (`serving.jobs.parallel.tasks`) and doing it (`serving.jobs.bulk.worker`).
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
from serving.jobs.bulk.sources import Source

SCHEMA = 1
FILE_NAME = "job.json"
_LOG = logging.getLogger(__name__)
_SHOWN = 3  # sources in a message
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
    sources: tuple[Source, ...]
    images: int
    listing: FileEntry
    offsets: FileEntry

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.images // self.shard_size)

    def rows(self, shard: int) -> range:
        """The rows of the listing that make up a shard."""
        return range(shard * self.shard_size, min(self.images, (shard + 1) * self.shard_size))


@dataclass(frozen=True)
class Asked:
    """What a command asks for; `form` auto and `batch` 0 are what suits here, or what the job was begun with."""

    release: Release
    sources: tuple[Source, ...]
    form: str
    dtype: Dtype
    batch: int
    shard_size: int

    def __post_init__(self) -> None:
        for name, number, least in (("batch", self.batch, 0), ("shard-size", self.shard_size, 1)):
            if number < least:
                raise BulkError(f"--{name} is {number}; it must be {least} or more")


def open_job(out: Path, asked: Asked, *, verify: bool = False) -> Job:
    """The job in `out`, begun if there is none; raises `BulkError` if it is another than `asked` for."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with job_locked(out):
            if (out / FILE_NAME).exists():
                job = read_job(out, verify=verify)
                _refuse_another(out, job, asked)
                return job
            return _begin(out, asked)
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


def _begin(out: Path, asked: Asked) -> Job:
    choice = choose(asked.release, form=asked.form)
    _LOG.info("%s runs as %s: %s", asked.release.manifest.title, choice.form, choice.why)
    write_listing(out, asked.sources)
    listing = Listing(out)
    job = Job(
        schema=SCHEMA,
        release=asked.release.manifest.title,
        digest=asked.release.digest,
        form=choice.form,
        embedding_dim=asked.release.manifest.embedding_dim,
        dtype=asked.dtype,
        batch=asked.batch or images_of_pass(asked.release.manifest.input.size, gpu=choice.device == "cuda"),
        shard_size=asked.shard_size,
        sources=asked.sources,
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


def _refuse_another(out: Path, job: Job, asked: Asked) -> None:
    for option, begun, now in _differences(job, asked):
        raise BulkError(
            f"{out} was begun with {option} {begun}, and now it is {now}: "
            f"ask for what it was begun with, or give another --out"
        )


def _differences(job: Job, asked: Asked) -> Iterator[tuple[str, object, object]]:
    """Every option that is another now: its name, its value then, its value now."""
    release = f"{asked.release.manifest.title} (digest {asked.release.digest})"
    settings = [
        ("--release", f"{job.release} (digest {job.digest})", release),
        ("--form", job.form, job.form if asked.form == "auto" else asked.form),
        ("--dtype", job.dtype, asked.dtype),
        ("--batch", job.batch, asked.batch or job.batch),
        ("--shard-size", job.shard_size, asked.shard_size),
    ]
    yield from ((option, begun, now) for option, begun, now in settings if begun != now)
    if [source.identity() for source in job.sources] != [source.identity() for source in asked.sources]:
        yield "the images of", _told(job.sources), _told(asked.sources)


def _told(sources: Sequence[Source]) -> str:
    shown = "; ".join(" ".join(filter(None, source.identity())) for source in sources[:_SHOWN])
    return shown + (f"; and {len(sources) - _SHOWN} more" if len(sources) > _SHOWN else "")
