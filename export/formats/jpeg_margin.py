"""From which size on a large JPEG may be decoded at a smaller scale, measured with this encoder on real pictures.

libjpeg decodes at a half, a quarter or an eighth of the side several times as fast, with nearly the same pixels. How
far the embedding moves depends on the encoder: some move by 0.001 of cosine, others by 0.006 where the picture stays
only six times as large as it is wanted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from core.images.decode import ImageError, decode
from core.images.folders import SourceError, UnreadableFile
from core.images.jpeg import MARGIN, jpeg_size
from core.machine.machine import usable_cores
from export.pictures import Changed, Pictures
from serving.collection.errors import CollectionError
from training.data.dataset import Dataset

MARGINS = (MARGIN, 8, 12, 16)
LEAST_COSINE = 0.999
_PICTURES = 64
_FEW = 8  # pictures that are decoded at a smaller scale; of fewer nothing follows
_LOOKED_AT = 512

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def measured_margin(embed: Embed, data: Dataset) -> int | None:
    """The release's `jpeg_margin`, by training images; None if too few of them are JPEGs that are large enough.

    `embed` maps uint8 (N, S, S, 3) to unit vectors (N, D).
    """
    return margin_of(embed, list(_large_jpegs(data, data.image_size)), data.image_size)


def margin_of(embed: Embed, files: Sequence[bytes], size: int) -> int | None:
    """The first of `MARGINS` at which every file's embedding stays within `LEAST_COSINE` of that of the whole picture.

    Only files count that are decoded at a smaller scale then, and there must be some; 0 means never to scale, None that
    nothing is known.
    """
    sides = np.array([min(jpeg_size(file) or (0,)) for file in files])
    if (sides >= 2 * MARGIN * size).sum() < _FEW:
        return None
    whole = embed(_decoded(files, size, margin=0)).astype(np.float64)
    for margin in MARGINS:
        chosen = np.flatnonzero(sides >= 2 * margin * size).tolist()
        if len(chosen) < _FEW:
            break
        scaled = embed(_decoded([files[at] for at in chosen], size, margin=margin))
        if (whole[chosen] * scaled).sum(axis=1).min() >= LEAST_COSINE:
            return margin
    return 0


def _large_jpegs(data: Dataset, size: int) -> Iterator[bytes]:
    """Up to 64 ordinary JPEGs among training images whose short side is decoded at half its length or less."""
    rows = np.random.default_rng(0).permutation(data.rows("train", "unlabelled"))[:_LOOKED_AT]
    found = 0
    for file in _readable(data, rows.tolist()):
        size_of_file = jpeg_size(file)
        if size_of_file is not None and min(size_of_file) >= 2 * MARGIN * size and _is_whole(file):
            yield file
            found += 1
        if found == _PICTURES:
            return


def _is_whole(file: bytes) -> bool:
    try:
        decode(file, 1)
    except ImageError:
        return False
    return True


def _readable(data: Dataset, rows: Iterable[int]) -> Iterator[bytes]:
    """The files that are still there and still those that were decoded: a data folder is whole without them."""
    try:
        pictures = Pictures(data)
    except CollectionError:
        return
    for row in rows:
        try:
            yield pictures.read(row)
        except SourceError:
            return
        except (Changed, UnreadableFile, OSError, ValueError):
            continue


def _decoded(files: Sequence[bytes], size: int, *, margin: int) -> NDArray[np.uint8]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return np.stack([*pool.map(lambda file: decode(file, size, margin=margin), files)])
