"""JPEG by simplejpeg: the pixels of Pillow in a fraction of its time, and large pictures decoded at a smaller scale.

libjpeg can leave out the highest frequencies of each 8x8 block, and so decode at a half, a quarter or an eighth of the
side. That is used only while the picture stays `margin` times as large as it is wanted; the bicubic filter then sees
enough to give nearly the same pixels. How near depends on the encoder.
Anything unusual - other colour spaces, broken files - is left to Pillow, which also raises the errors.
"""

from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

MARGIN: Final = 6
"""What holds for a release that says nothing about it; `export.formats.jpeg_margin` measures others."""

_START = b"\xff\xd8\xff"
_SCAN = b"\xff\xda"
_END = b"\xff\xd9"


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of an ordinary JPEG (YCbCr, RGB or grey); None for anything else."""
    header = _header(data)
    return header[:2] if header is not None and header[2] in ("YCbCr", "RGB", "Gray") else None


def scans(data: bytes) -> int:
    """How many scans a JPEG without metadata has: two such bytes stand nowhere else."""
    return data.count(_SCAN)


def decode_jpeg(data: bytes, *, least: int = 0) -> Image.Image | None:
    """Decode an ordinary JPEG to a picture as it lies, RGB or grey (mode L); None if it is broken in any way.

    With `least`, the picture may be smaller than it is stored, but its short side is at least `least` pixels.
    A missing end marker is no damage.
    """
    header = _header(data)
    if header is None:
        return None
    colours = "GRAY" if header[2] == "Gray" else "RGB"
    pixels = _strictly(data, colours, least)
    if pixels is None and not data.endswith(_END):
        pixels = _strictly(_ended(data), colours, least)
    return None if pixels is None else Image.fromarray(pixels[..., 0] if colours == "GRAY" else pixels)


def complete(data: bytes) -> bytes:
    """The file with an end marker, if that is all that a JPEG of any colour space lacks; else as it is."""
    header = _header(data)
    if header is None or data.endswith(_END) or header[2] not in ("CMYK", "YCCK"):
        return data
    ended = _ended(data)
    return data if _strictly(ended, "CMYK", 0) is None else ended


def _ended(data: bytes) -> bytes:
    return data[:-1] + _END if data.endswith(b"\xff") else data + _END


def _header(data: bytes) -> tuple[int, int, str] | None:
    if not data.startswith(_START):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return int(width), int(height), space


def _strictly(data: bytes, colours: str, least: int) -> NDArray[np.uint8] | None:
    try:
        found: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, min_height=least, min_width=least)
    except ValueError:
        return None
    return found
