"""The chosen images at the size that a release takes: as the data folder has them, or decoded again from their source.

Of a collection, which goes on living, an item that was deleted or replaced since it was frozen is scaled from those
pixels. Left out: what the images are for.
"""

from collections.abc import Callable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.images.decode import ImageError, decode
from core.images.folders import SourceError, UnreachableFile, UnreadableFile
from core.images.seen import Contents, contents
from export.comparison.chosen import Rows
from training.data.dataset import Dataset
from training.data.row_reader import RowReader

Reader = Callable[[Rows], NDArray[np.uint8]]


def reader_for(data: Dataset, size: int) -> Reader:
    """What reads rows as uint8 (N, size, size, 3); raises ValueError where other pixels can't be had."""
    if size == data.image_size:
        return RowReader(data.images)

    frozen = data.contents() if data.facts.get("collection") else None

    def one(row: int) -> NDArray[np.uint8]:
        try:
            return decode(_read(data, row, frozen), size)
        except _Changed:
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

    read(data.rows("test")[:1])  # tell at once that the source is gone
    return read


class _Changed(Exception):
    """The item is no longer what it was when the collection was frozen."""


def _read(data: Dataset, row: int, frozen: Contents | None) -> bytes:
    """The file of a row; raises `_Changed` where `frozen`, what the rows of a collection showed, is known."""
    if frozen is None:
        return data.read_item(data.ids[row])
    try:
        content = data.read_item(data.ids[row])
    except UnreachableFile:
        raise
    except UnreadableFile as error:
        raise _Changed from error
    if contents([sha256(content).digest()])[0] != frozen[row]:
        raise _Changed
    return content
