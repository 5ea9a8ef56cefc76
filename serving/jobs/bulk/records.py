"""What is known of every image of a shard besides its embedding, as a Parquet table.

| column | is |
| --- | --- |
| `row` | its row in the .npy beside; null if it could not be read |
| `id`, `source` | see `serving.jobs.bulk.sources` |
| `sha256`, `bytes` | of the file; null if it could not even be opened |
| `error` | why it could not be read; null if it could |

The same records give the same bytes: they hold nothing of the time or the machine.
"""

from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("error", pa.string()),
    ]
)
_GROUP = 4096  # records


class ImageRecord(NamedTuple):
    """One image: `source` says where it lies, `error` why there is no embedding of it."""

    id: str
    source: str
    sha256: str | None
    bytes: int | None
    error: str | None = None


class RecordsWriter:
    """Writes records to an open file, in groups of thousands; rows are numbered across groups.

    A context manager: the end of the Parquet file is written on exit.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd", use_dictionary=False)
        self._rows = count()
        self._waiting: list[ImageRecord] = []

    def append(self, records: Sequence[ImageRecord]) -> None:
        """Write records, or keep them until there are enough for a group."""
        self._waiting += records
        if len(self._waiting) >= _GROUP:
            self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
                self._writer.close()
        finally:
            self._writer.is_open = False  # or it would try again at garbage collection, with the file closed

    def _write(self) -> None:
        columns = {name: [_storable(getattr(record, name)) for record in self._waiting] for name in ImageRecord._fields}
        rows = [next(self._rows) if record.error is None else None for record in self._waiting]
        self._writer.write_table(pa.table({"row": rows, **columns}, schema=SCHEMA))
        self._waiting = []


def _storable(value: str | int | None) -> str | int | None:
    """Text as UTF-8; bytes of a name that are not become escapes."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
