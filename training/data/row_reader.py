"""Rows of an array on disk, read so that a failing disk is an error.

A memory map answers a read that fails, or one past the end of a file that was cut short meanwhile, by killing the
process with SIGBUS. Reading the bytes of each row with `preadv` costs no more, keeps no pages, and raises. A reader
also travels to another process as its path, where a memory map would be copied whole.
"""

import os
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RowReader:
    """Reads rows of `images`, uint8 (M, S, S, 3): from its file if it is a whole memory map, else from memory.

    A part of a map does not know where in the file it begins.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images: NDArray[np.uint8] | None = images
        self._path, self._offset = None, 0
        owner: object = images.base
        if isinstance(images, np.memmap) and images.filename is not None and isinstance(owner, mmap):
            self._images, self._path, self._offset = None, os.fspath(images.filename), images.offset
        self._shape = images.shape
        self._file: int | None = None

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The rows, in the order given: uint8 (N, S, S, 3). Raises OSError if one can't be read."""
        if self._images is not None:
            return self._images[rows]
        found = np.empty((len(rows), *self._shape[1:]), dtype=np.uint8)
        for place, row in enumerate(rows.tolist()):
            self._fill(found[place], row)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    def _fill(self, target: NDArray[np.uint8], row: int) -> None:
        assert self._path is not None
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY)
            read = os.preadv(self._file, [target.data], self._offset + row * target.nbytes)
        except OSError as error:
            raise OSError(f"can't read image {row} of {self._path}: {error.strerror}") from error
        if read < target.nbytes:
            raise OSError(f"can't read image {row} of {self._path}: the file ends before it; prepare the data again")
