"""The sampled images at the size that a release takes: as the data folder has them, or decoded again from their source.

A collection goes on living: an item of it that was deleted or replaced since it was frozen is scaled from the frozen
pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.images.decode import ImageError, decode
from core.images.folders import SourceError, UnreadableFile
from export.comparison.sample import Rows
from export.pictures import Changed, Pictures
from training.data.dataset import Dataset
from training.data.row_reader import RowReader

Reader = Callable[[Rows], NDArray[np.uint8]]


def reader_for(data: Dataset, size: int) -> Reader:
    """A reader of rows as uint8 (N, size, size, 3); raises ValueError if pixels of this size can't be had."""
    if size == data.image_size:
        return RowReader(data.images)

    pictures = Pictures(data)

    def one(row: int) -> NDArray[np.uint8]:
        try:
            return decode(pictures.read(row), size)
        except Changed:
            image = Image.fromarray(data.images[row])
            return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
        except (OSError, KeyError, SourceError, UnreadableFile, ImageError) as error:
            raise ValueError(
                f"the champion takes images of {size} px, {data.folder} has them at {data.image_size} px, and "
                f"{data.ids[row]} can't be decoded again from its source ({error}): put the source back, or compare "
                "with no champion (--no-champion)"
            ) from error

    def read(rows: Rows) -> NDArray[np.uint8]:
        return np.stack([one(int(row)) for row in rows])

    read(data.rows("test")[:1])  # fail at once if the source is gone
    return read
