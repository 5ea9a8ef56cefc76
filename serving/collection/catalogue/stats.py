"""How much a collection holds, in all and by release."""

from dataclasses import dataclass

from serving.collection.catalogue.bases import BaseRecord


@dataclass(frozen=True)
class ReleaseStats:
    """The vectors of one release: how many, the last write to them, and their base."""

    release: str
    vectors: int
    seq: int
    base: BaseRecord | None


@dataclass(frozen=True)
class Stats:
    """What a collection holds; `bytes_on_disk` is what the catalogue takes, without the index."""

    items: int
    seq: int
    labels: dict[str | None, int]
    sources_kept: int
    deletions_on_record: int
    bytes_on_disk: int
    releases: tuple[ReleaseStats, ...]
