"""Image files to one array on disk: decoded in threads, a bounded chunk at a time, in order.

The array is written front to back, so memory holds one chunk whatever the number of images. A file that can't
be decoded takes no row; it is reported with its reason.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from core.files.rows_file import RowsWriter
from core.images.decode import ImageError, decode, stored_size
from core.images.folders import ImageSource, SourceError, UnreadableFile
from core.machine.machine import usable_cores
from training.data.listing import Listing, member_path

SMALL_SIZES = (8, 16, 24, 32, 48, 64)
LARGE_SIZES = (96, 128, 160, 224)
_SAMPLE = 100
_REASONS_SHOWN = 3
_CHUNK_BYTES = 64 << 20

_Image = tuple[NDArray[np.uint8], bytes]


@dataclass(frozen=True)
class Decoded:
    """The names that have a row, in order, their files' SHA-256; other names with reasons; SHA-256 of the pixels."""

    names: list[str]
    digests: list[bytes]
    unreadable: list[dict[str, str]]
    pixels_digest: str


def choose_size(source: ImageSource, listing: Listing, *, max_size: int) -> int:
    """An image size in pixels for a source: the standard size nearest to the median short side of a sample.

    About 100 files are looked at, evenly spread. Up to 64 px the sizes are 8, 16, 24, 32, 48, 64; above,
    96, 128, 160 and 224. Never more than `max_size`.
    """
    step = max(1, round(len(listing.names) / _SAMPLE))
    sides = [
        side
        for name in listing.names[::step]
        if (side := _short_side(source, member_path(listing.prefix, name))) is not None
    ]
    if not sides:
        return min(SMALL_SIZES[3], max_size)  # nothing readable: decoding will say so, with reasons
    median = float(np.median(sides))
    sizes = SMALL_SIZES if median <= SMALL_SIZES[-1] else LARGE_SIZES
    return min(min(sizes, key=lambda size: abs(size - median)), max_size)


def decode_all(source: ImageSource, listing: Listing, *, size: int, target: Path) -> Decoded:
    """Decode `listing` to a uint8 (N, size, size, 3) .npy at `target`; N counts the readable files.

    Raises `SourceError` if none can be read, and OSError if `target` can't be written.
    """
    names, digests, unreadable, pixels_digest = [], [], [], hashlib.sha256()
    with open(target, "wb") as file, RowsWriter(file, row=(size, size, 3), dtype=np.uint8) as rows:
        for name, result in _decoded(source, listing, size):
            if isinstance(result, str):
                unreadable.append({"path": name, "reason": result})
                continue
            image, digest = result
            names.append(name)
            digests.append(digest)
            pixels_digest.update(image.tobytes())
            rows.append(image[None])
        if not names:
            raise SourceError(_none_readable(source, unreadable))
    return Decoded(names, digests, unreadable, pixels_digest.hexdigest())


def _decoded(source: ImageSource, listing: Listing, size: int) -> Iterator[tuple[str, _Image | str]]:
    """Every name in order, with its image and its file's SHA-256, or the reason why there is none."""

    def one(name: str) -> _Image | str:
        try:
            data = source.read(member_path(listing.prefix, name))
            return decode(data, size), hashlib.sha256(data).digest()
        except (ImageError, UnreadableFile) as error:
            return str(error)

    chunk = max(16, _CHUNK_BYTES // (size * size * 3))
    with (
        ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as pool,
        tqdm(total=len(listing.names), desc=f"decoding to {size}x{size}", unit=" images") as bar,
    ):
        for names in _chunks(listing.names, chunk):
            for name, result in zip(names, pool.map(one, names), strict=True):
                yield name, result
                bar.update()


def _none_readable(source: ImageSource, unreadable: list[dict[str, str]]) -> str:
    reasons = "; ".join(f"{item['path']}: {item['reason']}" for item in unreadable[:_REASONS_SHOWN])
    return f"none of the {len(unreadable)} image files of {source.path} can be read: {reasons}"


def _chunks(names: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), length):
        yield names[start : start + length]


def _short_side(source: ImageSource, name: str) -> int | None:
    try:
        return min(stored_size(source.read(name)))
    except (ImageError, UnreadableFile):
        return None
