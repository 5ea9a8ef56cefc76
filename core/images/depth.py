"""Any mode and depth that a decoder gives, to 8-bit grey or RGB over white, a strip at a time.

16 bits keep their high byte, 12 bits their upper eight. Floats in [0, 1] are multiplied by 255, others in [0, 255] are
rounded down. Where a depth has no natural white - 32-bit and signed integers, and other floats - the values are
stretched from the least to the greatest. What is no number is black.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP = 1 << 20  # pixels
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_Values = Callable[[Image.Image], NDArray[Any]]
_ToGrey = Callable[[NDArray[np.generic]], NDArray[np.uint8]]
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def to_8_bits(image: Image.Image) -> Image.Image:
    """The loaded picture in mode L or RGB; it may be the same object."""
    if image.mode[0] in "IF":
        return _grey(image)
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        return _over_white(image)
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _grey(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits, white_is_zero = tags.get(_BITS_PER_SAMPLE, (16,))[0], tags.get(_PHOTOMETRIC) == 0
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
    values_of = _unsigned if image.mode == "I" and bits == 32 and not signed else np.asarray
    to_grey = _rule(image, values_of, bits=bits, signed=signed)
    found = Image.new("L", image.size)
    for top, strip in _strips(image):
        grey = to_grey(values_of(strip))
        found.paste(Image.fromarray(255 - grey if white_is_zero else grey), (0, top))
    return found


def _unsigned(image: Image.Image) -> NDArray[np.uint32]:
    """The values of a picture of unsigned 32 bits, which Pillow has as signed ones."""
    return np.asarray(image, np.int32).view(np.uint32)


def _rule(image: Image.Image, values_of: _Values, *, bits: int, signed: bool) -> _ToGrey:
    if image.mode != "F" and bits <= 16 and not signed:
        shift = min(bits, 16) - 8
        return lambda values: np.clip(values.astype(np.int32) >> shift, 0, 255).astype(np.uint8)
    least, greatest = _range(image, values_of)
    if image.mode == "F" and least >= 0 and greatest <= 255:
        least, greatest = 0.0, 1.0 if greatest <= 1 else 255.0
    spread = greatest - least or 1.0

    def stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
        grey = (values.astype(np.float64) - least) * 255 / spread
        return np.clip(np.nan_to_num(grey, nan=0, posinf=255, neginf=0), 0, 255).astype(np.uint8)

    return stretch


def _range(image: Image.Image, values_of: _Values) -> tuple[float, float]:
    """The least and the greatest finite value; 0 and 0 if there is none."""
    bounds: list[float] = []
    for _, strip in _strips(image):
        values = values_of(strip)
        finite = values[np.isfinite(values)]
        if finite.size:
            bounds += [float(finite.min()), float(finite.max())]
    return (min(bounds), max(bounds)) if bounds else (0.0, 0.0)


def _over_white(image: Image.Image) -> Image.Image:
    found = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        found.paste(Image.alpha_composite(white, strip.convert("RGBA")).convert("RGB"), (0, top))
    return found


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Bands of whole rows from the top, so that memory holds only one of them beside the picture."""
    rows = max(1, _STRIP // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
