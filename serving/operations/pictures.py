"""Pictures of stored items: the source's bytes wherever they are kept, and thumbnails.

Left out: embedding them, and getting the item (`serving.collection.catalogue`).
"""

import hashlib
import io
import zipfile
from pathlib import Path

from PIL import Image

from serving.collection.items import Stored
from serving.images import open_upright
from serving.protocol.messages import Picture, RequestError

THUMBNAIL_SIDE = 128
_MAGIC = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"P": "image/x-portable-anymap",
}


def media_type_of(data: bytes) -> str:
    """The media type of an image file by its first bytes, whatever its sender calls it."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), "application/octet-stream")


def picture_of(item: Stored) -> Picture:
    """The source as it was stored, its bytes asked for. Raises `RequestError`, status 410, if its file is gone."""
    content = item.source.content
    if content is None:
        assert item.source.path is not None, "an item has bytes or a path"
        content = _read(item.id, item.source.path)
        if hashlib.sha256(content).digest() != item.source.sha256:
            raise RequestError(
                f"the file of item {item.id!r} is no longer the one that was stored: ingest it again", 410
            )
    return Picture(content, item.source.media_type or media_type_of(content))


def thumbnail_of(picture: Picture, side: int = THUMBNAIL_SIDE) -> Picture:
    """A JPEG of the whole picture, at most `side` pixels wide and high. Raises `ImageError` if it is broken."""
    image = open_upright(picture.content, side=side)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Picture(file.getvalue(), "image/jpeg")


def _read(name: str, path: str) -> bytes:
    """A file, or archive.zip!member; the path comes from the catalogue, never from a request."""
    archive, bang, member = path.partition("!")
    try:
        if bang and zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                return opened.read(member)
        return Path(path).read_bytes()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RequestError(f"the file of item {name!r} can't be read any more: {type(error).__name__}", 410) from error
