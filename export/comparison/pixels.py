"""The chosen images at the size that a release takes: as the data folder has them, or decoded again from their source.

Left out: what the images are for.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from export.comparison.chosen import Rows
from serving.folders import SourceError
from serving.images import ImageError, decode
from training.dataset import Dataset
from training.row_reader import RowReader

Reader = Callable[[Rows], NDArray[np.uint8]]


def reader_for(data: Dataset, size: int) -> Reader:
    """What reads rows as uint8 (N, size, size, 3); raises ValueError where other pixels can't be had."""
    if size == data.image_size:
        return RowReader(data.images)

    def read(rows: Rows) -> NDArray[np.uint8]:
        return np.stack([_decoded(data, int(row), size) for row in rows])

    read(data.rows("test")[:1])  # tell at once that the source is gone
    return read


def _decoded(data: Dataset, row: int, size: int) -> NDArray[np.uint8]:
    try:
        return decode(data.read_item(data.ids[row]), size)
    except (OSError, KeyError, SourceError, ImageError) as error:
        raise ValueError(
            f"the champion takes images of {size} px, {data.folder} has them at {data.image_size} px, and "
            f"{data.ids[row]} can't be decoded again from its source ({error}): put the source back, or compare with "
            "no champion (--no-champion)"
        ) from error
