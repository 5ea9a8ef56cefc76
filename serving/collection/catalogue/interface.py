"""The catalogue of a collection, as everyone else knows it: items, their vectors, spaces, bases, and snapshots.

It is the truth of a collection; an index is a cache of it. Every write takes its sequence number inside its
transaction, so whoever asks for the changes since some number misses none up to the number of the answer. What a write
returned is on disk, and every later read sees it, in whichever process.

Every method may raise `CatalogueError`: `CatalogueFull` if the disk takes no more, `CatalogueBusy` if others write for
too long. Both leave all as it was. A catalogue may be shared among threads.

A new implementation writes these classes, is named in `serving.collection.catalogue.opening`, and passes
`tests/serving/collection/catalogue/test_conformance.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from core.images.seen import Contents
from serving.collection.catalogue.bases import BaseRecord, Position
from serving.collection.catalogue.facets import Facet
from serving.collection.catalogue.filters import EVERYTHING, Filter
from serving.collection.catalogue.items import Item, Page, Stored
from serving.collection.catalogue.spaces import WHOLE, Part, Pending, Space
from serving.collection.catalogue.stats import Stats
from serving.collection.catalogue.vectors import Census, Changes, Rows, Vectors
from serving.collection.catalogue.writes import (
    Change,
    Delete,
    Deleted,
    Operation,
    Update,
    Updated,
    Upsert,
    Upserted,
    Written,
)
from serving.collection.errors import CollectionError


class Items(ABC):
    """The items: one, some, a page, those that a filter means.

    Rows count from 1 in the order of first upserts. A row is never used again, and an item keeps its row.
    """

    @abstractmethod
    def get(self, name: str, *, content: bool = False) -> Stored | None:
        """The item of this id, on request with its source's bytes; None if there is none."""

    @abstractmethod
    def get_many(self, names: Sequence[str]) -> dict[str, Stored]:
        """Those of `names` that exist, by id, without their sources' bytes."""

    @abstractmethod
    def at(self, rows: Iterable[int]) -> dict[int, Stored]:
        """The items at these rows, by row."""

    @abstractmethod
    def page(self, where: Filter = EVERYTHING, *, limit: int = 100, cursor: str | None = None) -> Page:
        """Up to `limit` items in the order of their first upsert; a page's cursor leads to the next one.

        An item that stays is listed exactly once, whatever is written meanwhile. Raises `FilterError` for a limit
        outside 1 to `MAX_LIMIT`, and for a cursor that no page gave.
        """

    @abstractmethod
    def count(self, where: Filter = EVERYTHING) -> int:
        """How many items a filter means."""

    @abstractmethod
    def facets(self, keys: Sequence[str], where: Filter = EVERYTHING, *, limit: int = 20) -> dict[str, Facet]:
        """For each key, up to `limit` of its values among the items that a filter means, the most frequent first.

        A key is `label` or one of the metadata, nested ones joined by dots. Raises `FilterError` for any other.
        """

    @abstractmethod
    def rows_matching(self, where: Filter) -> Rows:
        """The rows (N,) that a filter means, ascending."""

    @abstractmethod
    def rows_since(self, seq: int) -> Rows:
        """The rows (N,) of items that were stored or changed after write `seq`, ascending."""

    @abstractmethod
    def contents(self) -> tuple[Rows, Contents]:
        """Every row, ascending, and which picture each shows, uint64 (N,) (`core.images.seen`)."""

    @abstractmethod
    def kept_source(self, row: int) -> tuple[bytes, bytes] | None:
        """SHA-256 and bytes of the picture that the catalogue keeps of this row; None if it keeps none."""


class StoredVectors(ABC):
    """The vectors of each release, and how they changed."""

    @abstractmethod
    def of(self, ids: Sequence[str], release: str) -> dict[str, Vectors]:
        """The stored embedding (D,) of each of `ids` that has one by `release`."""

    @abstractmethod
    def digests_of(self, ids: Sequence[str], release: str) -> dict[str, bytes]:
        """For each of `ids` that has an embedding by `release`, the SHA-256 of the bytes it was computed from."""

    @abstractmethod
    def at(self, rows: Rows, release: str, *, until: int | None = None) -> tuple[Rows, Vectors]:
        """Those of `rows` that have a vector by `release`, ascending (N,), with their vectors (N, D).

        `until` leaves out what was written after that number.
        """

    @abstractmethod
    def census(self, release: str) -> Census:
        """Which rows have a vector by `release`."""

    @abstractmethod
    def sequence(self, release: str) -> int:
        """The number of the last write that changed vectors of `release`; 0 if there was none."""

    @abstractmethod
    def changes_since(self, release: str, since: int) -> Changes:
        """What changed of the vectors of `release` after write `since`; 0 for all there is.

        Raises `ChangesForgotten` if deletions since then are no longer on record.
        """


class Bases(ABC):
    """Which file is the base of each release's index; the files themselves are the index's."""

    @abstractmethod
    def get(self, release: str) -> BaseRecord | None:
        """The base of this release, if it has one."""

    @abstractmethod
    def position(self, release: str) -> Position:
        """What a worker must have to be up to date. Asked before every search, so it must be cheap."""

    @abstractmethod
    def files(self) -> set[str]:
        """The names of all files that are some release's base."""

    @abstractmethod
    def put(self, base: BaseRecord) -> None:
        """Name a release's new base; its file must already be whole and synced.

        Deletions that only the base before the last one lacked are forgotten. Those since the last base stay on record,
        so that whoever still has it mapped can go on with it.
        """

    @abstractmethod
    def drop(self, release: str) -> None:
        """Forget the base of a release that has no vectors left."""


class Spaces(ABC):
    """The spaces that the collection keeps complete, and what waits in each; a space has the name of its digest."""

    @abstractmethod
    def open(self, space: str) -> Space:
        """Keep the space complete from now on; writes nothing if that is so already.

        Everything that lacks a vector of it becomes pending. If nothing does, it is complete at once.
        """

    @abstractmethod
    def close(self, space: str) -> None:
        """Give the space up, with its vectors and its base; others may write meanwhile.

        If it is stopped halfway, no write reaches the space any more, and closing it again removes the rest. Whoever
        opens the space again meanwhile keeps what is not removed yet. The next compaction removes the base's file.
        """

    @abstractmethod
    def get(self, space: str) -> Space | None:
        """The space as it is now; None if the collection does not keep it."""

    @abstractmethod
    def all(self) -> list[Space]:
        """All spaces that the collection keeps."""

    @abstractmethod
    def settle(self, space: str) -> None:
        """Mark the space complete if nothing waits in it; writes nothing if it is already."""

    @abstractmethod
    def settle_but(self, space: str, few: int) -> None:
        """Mark the space complete if at most `few` items wait in it.

        If others write all the time, there may be no moment when nothing waits.
        """

    @abstractmethod
    def behind(self, space: str, *, until: int | None = None) -> bool:
        """Whether the space is complete and yet an item waits in it, if given since a write up to `until`.

        Asked before every search, so it must be cheap.
        """

    @abstractmethod
    def pending(
        self, space: str, *, limit: int, part: Part = WHOLE, after: Pending | None = None, until: int | None = None
    ) -> list[Pending]:
        """Up to `limit` items of the part that wait for a vector, the longest waiting first.

        `after` is the last item of an earlier call; `until` leaves out those that wait since a later write.
        """

    @abstractmethod
    def count_pending(self, space: str, part: Part = WHOLE) -> int:
        """How many items of the part wait."""

    @abstractmethod
    def fill(self, space: str, rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors) -> int:
        """Store embeddings (N, D) of the bytes with these digests; returns how many of the items still wanted them.

        An item does not if it has other bytes by now, or no longer waits. Raises `ItemError` for vectors that can't be
        stored.
        """

    @abstractmethod
    def fail(self, space: str, reasons: Sequence[tuple[Pending, str]]) -> int:
        """Note why items can't be embedded: they no longer wait, until they are written again.

        Returns how many items that concerned; one that was written anew in the meantime waits on.
        """

    @abstractmethod
    def failures(self, space: str, *, limit: int) -> dict[str, str]:
        """Why items can't be embedded, by id, for up to `limit` of them."""

    @abstractmethod
    def retry_failed(self, space: str, part: Part = WHOLE) -> None:
        """Let those items wait again that could not be embedded; until they are done, the space is filling."""


class SnapshotFiles(ABC):
    """The whole collection in one file, without its index; of pictures that are not kept, it has the paths."""

    @abstractmethod
    def save(self, path: Path) -> int:
        """Write the collection of one moment to `path`, whole or not at all; returns how many items it has."""

    @abstractmethod
    def restore(self, path: Path) -> int:
        """Replace all items by those of a snapshot, in one transaction; returns how many there are.

        Searches see the old items or the new ones; afterwards every worker begins anew, as earlier changes count as
        forgotten. The collection keeps its spaces and those of the snapshot. Raises `CatalogueError` for a file that is
        damaged or of another schema, and leaves the collection as it was.
        """

    @abstractmethod
    def bytes_needed(self) -> int:
        """How many bytes a snapshot takes at most."""


class Catalogue(ABC):
    """The truth of one collection. `folder` is where its index files, locks and named snapshots are."""

    folder: Path
    items: Items
    vectors: StoredVectors
    bases: Bases
    spaces: Spaces
    snapshots: SnapshotFiles

    @abstractmethod
    def write_many(self, operations: Sequence[Operation]) -> list[Written | CollectionError]:
        """Carry out each operation alone, all in one transaction; in place of one that was refused stands the reason.

        Each has a sequence number of its own. Raises `CatalogueError` if nothing of any of them was stored.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Whatever this thread reads inside is of one moment, also across the parts."""

    @abstractmethod
    def stats(self) -> Stats:
        """What the collection holds."""

    @abstractmethod
    def last_write(self) -> int:
        """The sequence number of the last write of all."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what this thread holds open."""

    def upsert(self, items: Sequence[Item], embeddings: Vectors, release: str) -> Upserted:
        """Store items with their embeddings (N, D) by `release`, all or nothing; the same id again replaces."""
        written = self._write(Upsert(items, embeddings, release))
        assert isinstance(written, Upserted)
        return written

    def update(self, changes: Sequence[Change]) -> Updated:
        """Change labels and metadata of items that are stored; their pictures and vectors stay."""
        written = self._write(Update(changes))
        assert isinstance(written, Updated)
        return written

    def delete(self, ids: Sequence[str] = (), *, where: Filter | None = None) -> Deleted:
        """Delete the items with these ids, or those that the filter means, with their vectors by every release."""
        written = self._write(Delete(ids, where))
        assert isinstance(written, Deleted)
        return written

    def _write(self, operation: Operation) -> Written:
        (written,) = self.write_many([operation])
        if isinstance(written, CollectionError):
            raise written
        return written
