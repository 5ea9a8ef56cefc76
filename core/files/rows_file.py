"""A .npy file written front to back, whose number of rows is known only at the end.

Not through a memory map: on a full disk that would end the process with SIGBUS, where a write raises.
"""

from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


class RowsWriter:
    """Writes rows of one shape and type to an open file, which must be seekable.

    A context manager: the number of rows is put into the header on exit.
    """

    def __init__(self, file: BinaryIO, *, row: tuple[int, ...], dtype: DTypeLike) -> None:
        self._file = file
        self._row = row
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._count = 0
        self._start = self._header()

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows (n, *row), n >= 0."""
        assert rows.shape[1:] == self._row
        self._file.write(rows.astype(self._dtype, copy=False).tobytes())
        self._count += len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.seek(0)
            end = self._header()
            assert end == self._start  # numpy pads a header for any length of the first axis

    def _header(self) -> int:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._count, *self._row),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()
