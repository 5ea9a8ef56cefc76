"""How many pixels the images of a request may have in all, as the headers of their files say before any is decoded.

A file of some kilobytes can have millions of pixels, so a body of ordinary length could keep a worker busy for minutes.
Memory is no concern here: each decoding thread holds one picture at a time.
"""

from collections.abc import Sequence

from core.images.decode import DEFAULT_LIMITS, stored_size

REQUEST_PIXELS = 512_000_000


def too_many_pixels(images: Sequence[bytes]) -> int | None:
    """How many pixels the images have, if that is above `REQUEST_PIXELS`; files that will fail count as none."""
    if len(images) * DEFAULT_LIMITS.max_pixels <= REQUEST_PIXELS:
        return None
    pixels = sum(map(_pixels_of, images))
    return pixels if pixels > REQUEST_PIXELS else None


def _pixels_of(image: bytes) -> int:
    try:
        width, height = stored_size(image)
    except Exception:  # it fails with its own error when it is decoded
        return 0
    return width * height if width * height <= DEFAULT_LIMITS.max_pixels else 0
