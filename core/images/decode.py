"""Bytes to an upright RGB square: the one decoder, and every limit on input images.

Training, ingestion and serving all decode here, so an image gives the same pixels wherever it enters. Scaling to
[0, 1] and normalisation are inside the exported graph.

The rule, in this order:

1. at most `Limits.max_bytes` bytes and `Limits.max_pixels` pixels are accepted (read from the header, before decoding);
2. of an animation or a multi-page file, the first frame is taken;
3. EXIF orientation is applied;
4. 16-bit grey is divided down to 8 bits, floating-point grey is clipped to 0..255, a palette is looked up,
   CMYK and others become RGB;
5. transparency is laid over white;
6. the short side is scaled to the size (bicubic, antialiased) and the centre square is cut out; a JPEG is
   decoded at a half, a quarter or an eighth of its side first where that is still six times the size.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from core.images.jpeg import decode_jpeg, jpeg_size

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
_WHITE = (255, 255, 255, 255)

Image.init()  # all plugins now: Pillow registers them lazily, and never for a list of formats
Image.MAX_IMAGE_PIXELS = None  # our own limit below is checked on the header, and gives a clear error


class ImageError(ValueError):
    """An image that can't be used; `status` is the HTTP status that says so."""

    status = 422


class ImageTooLarge(ImageError):
    """More bytes or more pixels than the limits allow."""

    status = 413


class ImageFormatUnknown(ImageError):
    """Bytes that are no image, or an image of a format that is not read here."""

    status = 415


@dataclass(frozen=True)
class Limits:
    """What one image may cost: bytes as sent, and pixels once decoded (width x height)."""

    max_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 64_000_000


DEFAULT_LIMITS = Limits()


def decode(data: bytes, size: int, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode one image file to a uint8 array of shape (size, size, 3), RGB.

    Raises `ImageTooLarge`, `ImageFormatUnknown`, or plain `ImageError` for a broken file.
    """
    image = open_upright(data, limits, side=size)
    return np.asarray(square(image, size))


def open_upright(data: bytes, limits: Limits = DEFAULT_LIMITS, *, side: int = 0) -> Image.Image:
    """Decode one image file to an upright 8-bit RGB picture at its own size (rules 1 to 5).

    A large JPEG of which only `side` pixels are wanted may come smaller (`core.images.jpeg`).
    """
    if not data:
        raise ImageError("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted")
    jpeg = jpeg_size(data)
    if jpeg is not None:
        _check_pixels(jpeg, limits)
        picture = decode_jpeg(data, side=side)
        if picture is not None:
            return picture
    image = _open(data)
    _check_pixels(image.size, limits)
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise ImageError(f"the {image.format} image is broken: {error}") from error


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side to `size` and cut out the centre square (rule 6)."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"the image has {width}x{height} pixels; at most {limits.max_pixels} in all are accepted")


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata in a readable file is not the user's problem
        try:
            return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
        except UnidentifiedImageError as error:
            raise ImageFormatUnknown(
                f"not an image of a known format (first bytes {data[:8]!r}); accepted: {', '.join(PILLOW_FORMATS)}"
            ) from error
        except Exception as error:
            raise ImageError(f"the image is broken: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _grey_to_8_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image.convert("RGBA"))
    return image.convert("RGB")


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte; Pillow's own convert clips everything above 255 to white."""
    grey = np.asarray(image).astype(np.int64)
    return Image.fromarray(np.clip(grey >> 8, 0, 255).astype(np.uint8))
