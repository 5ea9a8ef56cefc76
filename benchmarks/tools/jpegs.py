"""Real JPEG files to send: as they lie in a folder or zip, or enlarged to the size of a photograph.

An enlarged file is a real picture at a real size, but smoother than a photograph, so it has fewer bytes and is
decoded a little faster; a benchmark that uses them says so.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from core.images.decode import open_upright
from core.images.folders import open_source

PHOTOGRAPH = (500, 375)  # width and height
QUALITY = 90
_SUFFIXES = (".jpg", ".jpeg")


def read_jpegs(path: Path, count: int) -> list[bytes]:
    """`count` JPEG files from all over a folder or zip; fewer where it has fewer, ValueError where it has none."""
    source = open_source(path)
    names = [name for name in source.names() if name.lower().endswith(_SUFFIXES)]
    if not names:
        raise ValueError(f"{path} has no JPEG files (by the suffix .jpg or .jpeg); the benchmark sends real ones")
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [source.read(names[place]) for place in places]


def enlarge(jpegs: list[bytes], size: tuple[int, int] = PHOTOGRAPH) -> list[bytes]:
    """The same pictures at `size` (width, height), bicubic, saved as JPEG of quality 90."""
    return [_saved(open_upright(data).resize(size, Image.Resampling.BICUBIC)) for data in jpegs]


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
