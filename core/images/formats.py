"""Which image formats are read, and how one is recognised by its first bytes, whatever a file is called.

HEIC is read by pillow-heif, everything else by Pillow. TGA has no signature at its start, so only files with the
footer of TGA 2.0 are taken for one. Formats that run a program (EPS), that only point to other files, or that nobody
photographs with are not read.
"""

import re
from typing import Final

import pillow_heif
from PIL import Image

PILLOW_FORMATS: Final = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"),
    *("AVIF", "HEIF", "JPEG2000", "ICO", "TGA"),
)
SUFFIXES: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
        *(".avif", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".ico", ".tga"),
    }
)
_TGA_FOOTER: Final = b"TRUEVISION-XFILE.\x00"
_SIGNATURES: Final = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{14}\x00\x00|BM.{12}[\x0c-\x7c]\x00\x00\x00", re.DOTALL)),
    ("TIFF", re.compile(rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+")),
    ("PPM", re.compile(rb"P[1-6f][\s#]")),
    ("ICO", re.compile(rb"\x00\x00\x01\x00[^\x00]|\x00\x00\x01\x00\x00[^\x00]")),
    ("JPEG2000", re.compile(rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n")),
)
_AVIF: Final = {b"avif", b"avis"}
_HEIF: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

Image.init()  # all plugins now: Pillow registers them lazily, and never for a list of formats
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
Image.MAX_IMAGE_PIXELS = None  # our own limit is checked on the header, and gives a clear error


def format_of(data: bytes) -> str | None:
    """The format of `PILLOW_FORMATS` that a file has by its signature; None for anything else."""
    for name, signature in _SIGNATURES:
        if signature.match(data):
            return name
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    return "TGA" if data.endswith(_TGA_FOOTER) else None


def media_type_of(data: bytes) -> str:
    """The media type of an image file by its signature."""
    name = format_of(data)
    return "application/octet-stream" if name is None else Image.MIME[name]


def _of_brands(data: bytes) -> str | None:
    """AVIF or HEIF by the brands in the first box of the file; a film with the same box is neither."""
    box = data[8 : min(int.from_bytes(data[:4]), 1024)]
    brands = {box[at : at + 4] for at in (0, *range(8, len(box), 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIF" if brands & _HEIF else None
