"""The files of one shard: its embeddings, what is known of each image, and last the facts that make it finished.

shard-000012.npy       (n, D) of the images that could be read, in their order
shard-000012.parquet   all images, a row each (`serving.jobs.bulk.records`)
shard-000012.json      counts, sizes and digests; a shard is finished once this is there and the others match it
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from core.files.durable import publish_file, sha256_of
from core.files.rows_file import RowsWriter
from core.releases.manifest import FileEntry, entry_of
from serving.jobs.bulk.errors import RESUME, BulkError
from serving.jobs.bulk.job import publish_struct
from serving.jobs.bulk.records import ImageRecord, RecordsWriter

_LOG = logging.getLogger(__name__)


class ShardFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A finished shard: its number of images, and how many of them were embedded, by what."""

    shard: int
    images: int
    embedded: int
    runtime: str
    npy: FileEntry
    parquet: FileEntry

    @property
    def unreadable(self) -> int:
        """The number of images that could not be read."""
        return self.images - self.embedded


class ShardFiles(NamedTuple):
    """Where a shard's files lie."""

    npy: Path
    parquet: Path
    facts: Path

    @classmethod
    def of(cls, out: Path, shard: int) -> "ShardFiles":
        """The files of a shard by its number."""
        stem = out / f"shard-{shard:06d}"
        return cls(stem.with_suffix(".npy"), stem.with_suffix(".parquet"), stem.with_suffix(".json"))


class ShardContent(NamedTuple):
    """The content of a shard: `embeddings` (n, D) of the n `records` that have no error."""

    embeddings: NDArray[Any]
    records: Sequence[ImageRecord]
    runtime: str


def publish_shard(out: Path, shard: int, content: ShardContent) -> None:
    """Write a shard for good; raises `BulkError` if there is no room."""
    files = ShardFiles.of(out, shard)
    try:
        publish_file(files.npy, lambda partial: _write_rows(partial, content.embeddings))
        publish_file(files.parquet, lambda partial: _write_records(partial, content.records))
        facts = ShardFacts(
            shard=shard,
            images=len(content.records),
            embedded=len(content.embeddings),
            runtime=content.runtime,
            npy=entry_of(files.npy),
            parquet=entry_of(files.parquet),
        )
        publish_struct(files.facts, facts)
    except OSError as error:
        raise BulkError(f"can't write {files.npy.stem} in {out}: {error}; make room: {RESUME}") from error


def finished_shard(out: Path, shard: int, *, verify: bool = False) -> ShardFacts | None:
    """A shard's facts if its files are as they say, by size or with `verify` by digest; else None."""
    files = ShardFiles.of(out, shard)
    try:
        facts = msgspec.json.decode(files.facts.read_bytes(), type=ShardFacts)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        _LOG.warning("%s is broken (%s): the shard is embedded again", files.facts, error)
        return None
    for path, entry in ((files.npy, facts.npy), (files.parquet, facts.parquet)):
        if not _is_whole(path, entry, verify=verify):
            _LOG.warning("%s is missing or was changed: the shard is embedded again", path)
            return None
    return facts


def _write_rows(path: Path, embeddings: NDArray[Any]) -> None:
    with open(path, "wb") as file, RowsWriter(file, row=embeddings.shape[1:], dtype=embeddings.dtype) as rows:
        rows.append(embeddings)


def _write_records(path: Path, records: Sequence[ImageRecord]) -> None:
    with open(path, "wb") as file, RecordsWriter(file) as table:
        table.append(records)


def _is_whole(path: Path, entry: FileEntry, *, verify: bool) -> bool:
    try:
        return path.stat().st_size == entry.bytes and (not verify or sha256_of(path) == entry.sha256)
    except FileNotFoundError:
        return False
