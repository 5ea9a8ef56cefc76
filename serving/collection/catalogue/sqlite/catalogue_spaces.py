"""The part of the catalogue that is about embedding spaces: keeping one complete, filling it, and giving it up.

Left out: everything else about items and vectors (`serving.collection.catalogue.sqlite.catalogue`).
"""

from collections.abc import Sequence

from serving.collection.catalogue.sqlite import filling, spaces
from serving.collection.catalogue.sqlite.database import Database
from serving.collection.catalogue.sqlite.spaces import WHOLE, Part, Pending, Space
from serving.collection.catalogue.sqlite.vectors import Rows, Vectors
from serving.collection.errors import CatalogueError

_REMOVED_AT_ONCE = 2_000  # vectors of a closed space in one transaction: others write between two


class SpacesOfCatalogue:
    """What `Catalogue` can do with its spaces; a space is named by its digest."""

    _database: Database

    def open_space(self, space: str) -> Space:
        """Keep the space complete from now on; writes nothing if that is so already.

        Everything that lacks a vector of it becomes pending. Where nothing is, it is complete at once.
        """
        with self._database.reading() as db:
            settled = spaces.is_settled(db, space)
        if not settled:
            with self._database.writing() as db:
                spaces.open_space(db, space)
        found = self.space(space)
        if found is None:
            raise CatalogueError(f"space {space[:16]} was closed while it was being opened: try again")
        return found

    def settle(self, space: str) -> None:
        """Mark the space complete if nothing waits in it; writes nothing where that is not called for."""
        with self._database.reading() as db:
            settled = spaces.is_settled(db, space)
        if settled is False:
            with self._database.writing() as db:
                spaces.mark_complete(db, space)

    def settle_but(self, space: str, few: int) -> None:
        """Mark the space complete if at most so many items wait in it.

        Where others write all the time, there may be no moment when nothing does.
        """
        with self._database.writing() as db:
            spaces.mark_complete_but(db, space, few)

    def space(self, space: str) -> Space | None:
        """The space as it is now; None if the collection does not keep it."""
        with self._database.reading() as db:
            return spaces.space_of(db, space)

    def spaces(self) -> list[Space]:
        """All spaces that the collection keeps."""
        with self._database.reading() as db:
            return spaces.spaces(db)

    def behind(self, space: str, *, until: int | None = None) -> bool:
        """Whether the space is complete and yet an item waits in it, if so asked since a write up to `until`."""
        with self._database.reading() as db:
            return spaces.behind(db, space, until)

    def last_write(self) -> int:
        """The sequence number of the last write of all."""
        with self._database.reading() as db:
            return int(db.execute("SELECT last FROM sequence").get)

    def pending(
        self, space: str, *, limit: int, part: Part = WHOLE, after: Pending | None = None, until: int | None = None
    ) -> list[Pending]:
        """Up to `limit` items of the part that wait for a vector, the longest waiting first.

        `after` is the last that was had before; `until` leaves out those that wait since a later write.
        """
        with self._database.reading() as db:
            return spaces.waiting(db, space, limit=limit, part=part, after=after, until=until)

    def count_pending(self, space: str, part: Part = WHOLE) -> int:
        """How many items of the part wait."""
        with self._database.reading() as db:
            return spaces.count_waiting(db, space, part)

    def failures(self, space: str, *, limit: int) -> dict[str, str]:
        """Of up to `limit` items that can't be embedded, by id, why."""
        with self._database.reading() as db:
            return spaces.failures(db, space, limit)

    def kept_source(self, row: int) -> tuple[bytes, bytes] | None:
        """SHA-256 and bytes of the picture that the catalogue keeps of this row; None if it keeps none."""
        query = "SELECT sha256, content FROM items CROSS JOIN sources ON item = row WHERE row = ?"
        with self._database.reading() as db:
            return db.execute(query, (row,)).fetchone()

    def fill(self, space: str, rows: Sequence[int] | Rows, digests: Sequence[bytes], vectors: Vectors) -> int:
        """Store embeddings (N, D) of the bytes with these digests; returns of how many items they were wanted.

        They are not where the item has other bytes by now, or waits no more. Raises `ItemError` for vectors that can't
        be stored, `CatalogueError` if nothing of it was.
        """
        checked = filling.checked(rows, digests, vectors)
        with self._database.writing() as db:
            return filling.fill(db, space, rows, digests, checked)

    def fail_pending(self, space: str, reasons: Sequence[tuple[Pending, str]]) -> int:
        """Note why items can't be embedded: they wait no more, until they are written again.

        Returns how many that were; one that was written anew since it was had waits on.
        """
        with self._database.writing() as db:
            return filling.fail(db, space, reasons)

    def retry_failed(self, space: str, part: Part = WHOLE) -> None:
        """Have those wait again that could not be embedded; the space is filling until they are through."""
        with self._database.writing() as db:
            spaces.retry_failed(db, space, part)

    def close_space(self, space: str) -> None:
        """Give the space up, with its vectors and its base; others may write meanwhile.

        Stopped half-way, no write reaches the space any more, and closing it again removes the rest. Whoever opens it
        again meanwhile keeps what is not removed yet. The base's file is removed by the next compaction.
        """
        with self._database.writing() as db:
            spaces.forget_space(db, space)
        done = False
        while not done:
            with self._database.writing() as db:
                done = spaces.remove_some(db, space, _REMOVED_AT_ONCE)
