"""Images in any form that Python programs have them in, as the bytes of image files.

Image files are sent as they are, whatever their format; pictures that are in memory already go as PNG, which loses
nothing. Pillow is imported when there is such a picture.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from serving.protocol.agreed import MAX_IMAGES

if TYPE_CHECKING:
    from PIL import Image as Pillow

Image: TypeAlias = (
    "bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | Pillow.Image | NDArray[np.uint8]"
)
_MAX_BYTES = 48 << 20  # of the images of one request; a server takes bodies of up to 64 MiB
_COMPRESSION = 1  # several times faster than the usual 6, for little more bytes


def image_bytes(image: Any) -> bytes:
    """The bytes of an image file: what a path or an open binary file has, bytes as they are, a picture as PNG.

    A picture is a Pillow image, turned upright if its EXIF says how, or an array uint8 (H, W, 3), RGB. Raises
    `ValueError` for anything else, and OSError for a file that can't be read.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            return file.read()
    if isinstance(image, np.ndarray):
        return _of_array(image)
    if _is_picture(image):
        return _of_picture(image)
    if hasattr(image, "read"):
        return _of_file(image)
    raise ValueError(
        f"an image is {type(image).__name__}; it may be bytes, a path, a binary file, a Pillow image, or an array "
        "uint8 (H, W, 3)"
    )


def image_groups(images: Iterable[Any]) -> Iterator[list[bytes]]:
    """The images' bytes, in groups of what one request may hold; no images are an empty group."""
    group: list[bytes] = []
    size = 0
    for content in map(image_bytes, several(images)):
        if group and (len(group) == MAX_IMAGES or size + len(content) > _MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(content)
        size += len(content)
    yield group


def several(images: Iterable[Any]) -> Iterable[Any]:
    """The images; raises `ValueError` for a single one, whose letters or rows would be taken for images."""
    single = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or hasattr(images, "read")
    if single or _is_picture(images) or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise ValueError(f"images is one {type(images).__name__}; give a list, of one image too")
    return images


def _is_picture(image: Any) -> "TypeGuard[Pillow.Image]":
    """Whether it is a Pillow image; there is none before Pillow is imported."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def _of_array(image: NDArray[Any]) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is an array {image.dtype} {image.shape}; it must be uint8 (H, W, 3), RGB")
    from PIL import Image as Pillow

    return _png(Pillow.fromarray(np.ascontiguousarray(image)))


def _of_picture(image: "Pillow.Image") -> bytes:
    from PIL import ImageOps

    return _png(ImageOps.exif_transpose(image))


def _png(image: "Pillow.Image") -> bytes:
    file = io.BytesIO()
    try:
        image.save(file, "PNG", compress_level=_COMPRESSION)
    except OSError:  # CMYK, YCbCr and others have no form in PNG
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG", compress_level=_COMPRESSION, icc_profile=None)
    return file.getvalue()


def _of_file(file: BinaryIO) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError(f"an image is a file opened for text ({file!r:.80}); open it with mode 'rb'")
    return content
