"""Bytes to an upright RGB square: the one decoder, and every limit on input images.

Training, ingestion and serving all decode here, so an image gives the same pixels wherever it enters. Scaling to
[0, 1] and normalisation are inside the exported graph.

The rule, in this order:

1. at most `Limits.max_bytes` bytes and `Limits.max_pixels` pixels are accepted (read from the header, before decoding);
2. of an animation or a multi-page file, the first frame is taken, and of an icon the largest;
3. metadata is set aside, whatever its state (`core.images.metadata`), and the orientation it gives is applied;
4. other depths are scaled to 8 bits (`core.images.depth`), a palette is looked up, CMYK and others become RGB;
5. transparency is laid over white;
6. the short side is scaled to the size (bicubic, antialiased) and the centre square is cut out; a large JPEG or
   JPEG 2000 is decoded at a fraction of its side first where that is still `margin` times the size.
"""

import io
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from core.images.depth import to_8_bits
from core.images.formats import PILLOW_FORMATS, format_of
from core.images.icon import bitmap_size, picture_in
from core.images.jpeg import MARGIN, complete, decode_jpeg, jpeg_size, scans
from core.images.metadata import Parts, parts_of, resolutions

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 274
_TILE_SIDES = (322, 323)  # TIFF
warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata in a readable file is not the user's problem
_BLOCK = 16 * 1024  # bytes that a decoder is given at once; the time is looked at between two of them


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
    """What one image may cost.

    Bytes as sent, pixels once decoded (width x height), pixels times scans of a JPEG (each scan of a progressive one
    passes over the whole picture), and seconds of one core.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_pixels: int = 64_000_000
    max_scanned: int = 1_000_000_000
    max_seconds: float = 4.0


DEFAULT_LIMITS = Limits()


def decode(data: bytes, size: int, limits: Limits = DEFAULT_LIMITS, *, margin: int = MARGIN) -> NDArray[np.uint8]:
    """Decode one image file to a uint8 array of shape (size, size, 3), RGB; `margin` as in `open_upright`.

    Raises `ImageTooLarge`, `ImageFormatUnknown`, or plain `ImageError` for a broken file.
    """
    image = _open_upright(data, limits, side=size, margin=margin)
    return np.asarray(square(image, size).convert("RGB"))


def open_upright(data: bytes, limits: Limits = DEFAULT_LIMITS, *, side: int = 0, margin: int = MARGIN) -> Image.Image:
    """Decode one image file to an upright 8-bit RGB picture at its own size (rules 1 to 5).

    Where only `side` pixels are wanted, a large JPEG or JPEG 2000 may come smaller, but with a short side of at least
    `margin` x `side`; a margin of 0 decodes every picture whole.
    """
    return _open_upright(data, limits, side=side, margin=margin).convert("RGB")


def stored_size(data: bytes) -> tuple[int, int]:
    """Width and height as a file's header gives them, before it is turned upright. Raises `ImageError`."""
    form, parts = _taken_apart(data)
    with _image_errors(form):
        found = jpeg_size(parts.pixels) if form == "JPEG" else None
        return found or _open(parts.pixels, form, DEFAULT_LIMITS).size


def square(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side to `size` and cut out the centre square (rule 6)."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def _open_upright(data: bytes, limits: Limits, *, side: int, margin: int) -> Image.Image:
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; at most {limits.max_bytes} are accepted")
    form, parts = _taken_apart(data)
    least = side * margin
    with _image_errors(form):
        image = _fast_jpeg(parts.pixels, limits, least) if form == "JPEG" else None
        if image is not None:
            return _turned(image, parts.orientation)
        data = complete(parts.pixels) if form == "JPEG" else parts.pixels
        if form == "ICO":  # opened and decoded at once
            _check_size(bitmap_size(data), limits)
        image = _open(data, form, limits)
        _check_pixels(image, data, limits)
        _reduce(image, data, least)
        image.load()
        orientation = _orientation(image, parts)
        return _turned(to_8_bits(image), orientation)


@contextmanager
def _image_errors(form: str) -> Iterator[None]:
    """Turn whatever a decoder raises on hostile bytes, which is nearly anything, into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # the signature was right, so this is a damaged file
        raise ImageError(f"the {form} image is broken: its header can't be read") from error
    except Exception as error:
        raise ImageError(f"the {form} image is broken: {error}") from error


def _taken_apart(data: bytes) -> tuple[str, Parts]:
    """The format of a file, and the file without metadata; of an icon that holds a PNG, those of the PNG."""
    if not data:
        raise ImageError("the image is empty (0 bytes)")
    form = format_of(data)
    if form == "ICO":
        data = picture_in(data)
        form = format_of(data)
    if form is None:
        raise ImageFormatUnknown(
            f"not an image of a known format (first bytes {data[:8]!r}); accepted: {', '.join(PILLOW_FORMATS)}"
        )
    return form, parts_of(data, form)


def _fast_jpeg(data: bytes, limits: Limits, least: int) -> Image.Image | None:
    """An ordinary, undamaged JPEG as it lies; None for any other."""
    size = jpeg_size(data)
    if size is None:
        return None
    _check_size(size, limits)
    _check_scans(size, data, limits)
    return decode_jpeg(data, least=least)


def _open(data: bytes, form: str, limits: Limits) -> Image.Image:
    image = Image.open(_Timed(data, limits.max_seconds), formats=(form,))
    image.decodermaxblock = _BLOCK
    return image


class _Timed(io.BytesIO):
    """A file in memory that can be read for a limited time of its thread; waiting for a core does not count."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self._seconds = seconds
        self._end = time.thread_time() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._end:
            raise ImageError(f"the image takes more than {self._seconds:g} s to decode")
        return super().read(size)


def _check_pixels(image: Image.Image, data: bytes, limits: Limits) -> None:
    _check_size(image.size, limits)
    if image.format in ("JPEG", "MPO"):
        _check_scans(image.size, data, limits)
    tags = getattr(image, "tag_v2", {})
    width, height = (tags.get(tag, 0) for tag in _TILE_SIDES)
    if isinstance(width, int) and isinstance(height, int):
        _check_size((width, height), limits)


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"the image has {width}x{height} pixels; at most {limits.max_pixels} in all are accepted")


def _check_scans(size: tuple[int, int], data: bytes, limits: Limits) -> None:
    width, height = size
    passes = scans(data)
    if passes * width * height > limits.max_scanned:
        raise ImageError(
            f"the image has {passes} scans of {width}x{height} pixels; "
            f"at most {limits.max_scanned} pixels in all scans are accepted"
        )


def _reduce(image: Image.Image, data: bytes, least: int) -> None:
    """Let a JPEG 2000 decode only the resolutions that are needed for a short side of `least` pixels."""
    if image.format == "JPEG2000" and least:
        halvings = (min(image.size) // least).bit_length() - 1
        image.reduce = max(0, min(halvings, resolutions(data)))  # type: ignore[method-assign,assignment]


def _orientation(image: Image.Image, parts: Parts) -> int:
    """That of the metadata set aside, or what the decoder of another format found."""
    if image.format in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "JPEG2000"):
        return parts.orientation
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata rotates nothing
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
