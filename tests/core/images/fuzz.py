"""Seeded damage to real files: how `test_fuzz` makes it, and a command that decodes any folder of images as well.

`python -m tests.core.images.fuzz COUNT [FOLDER]` decodes every file of FOLDER, and COUNT damaged ones.
"""

import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from core.images.decode import ImageError, decode
from core.images.formats import PILLOW_FORMATS
from tests.core.images.test_decode import encoded
from tests.core.images.test_jpeg import by_pillow, photographs

SLOWEST = 5.0  # seconds of one core


@dataclass
class Outcome:
    """How many files came to which end, and what must not happen."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def seeds() -> list[bytes]:
    """Real photographs in every format, and in the modes and variants that other code of the decoders reads."""
    picture = by_pillow(photographs()["china"]).resize((160, 107))
    files = [encoded(picture, form) for form in PILLOW_FORMATS if form != "ICO"]
    files += [encoded(picture.crop((0, 0, 64, 64)), "ICO"), *(data for data in photographs().values())]
    files += [encoded(picture, "JPEG", progressive=True), encoded(picture.convert("CMYK"), "JPEG")]
    files += [encoded(picture.convert(mode), "PNG") for mode in ("L", "LA", "P", "RGBA", "1")]
    files += [
        encoded(picture, "TIFF", compression=how) for how in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")
    ]
    files += [encoded(picture.convert("L").convert(mode), "TIFF") for mode in ("I;16", "F", "I")]
    files += [encoded(picture.convert(mode), "TIFF") for mode in ("CMYK", "YCbCr")]
    frames = [picture, picture.transpose(Image.Transpose.ROTATE_180)]
    return files + [
        encoded(frames[0], form, save_all=True, append_images=frames[1:]) for form in ("GIF", "WEBP", "PNG")
    ]


def damaged(files: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` files with bytes changed, mostly near the start; pieces removed, doubled, or of another file; or cut."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        data, other = bytearray(files[number % len(files)]), files[int(rng.integers(len(files)))]
        for _ in range(rng.integers(1, 5)):
            reach = len(data) if rng.random() < 0.4 else min(len(data), 512)
            at, length = int(rng.integers(reach)), int(rng.integers(1, 64))
            match rng.integers(5):
                case 0:
                    data[at] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
                case 1:
                    data[at : at + 4] = rng.bytes(4)
                case 2:
                    del data[at : at + length]
                case 3:
                    data[at:at] = data[at : at + length]
                case _:
                    data[at : at + length] = other[at : at + length]
            data = data or bytearray(b"\x00")
        yield bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.1 else data)


def try_all(files: Iterator[tuple[str, bytes]], size: int = 32) -> Outcome:
    """Decode every file; a fault is any exception but `ImageError`, and any file that takes too long."""
    found = Outcome()
    for name, data in files:
        start = time.thread_time()
        try:
            decode(data, size)
            found.ends["decoded"] += 1
        except ImageError as error:
            found.ends[str(error.status)] += 1
        except BaseException as error:
            found.faults.append(f"{name}: {error!r}")
        if (taken := time.thread_time() - start) > SLOWEST:
            found.faults.append(f"{name}: {taken:.1f} s")
    return found


def memory() -> float:
    """What this process holds in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main(count: int, folder: Path | None) -> int:
    """Print what came of it; 1 if there were faults."""
    files = seeds()
    try_all((str(number), data) for number, data in enumerate(files))
    before = memory()
    faults = 0
    given = [path for path in sorted(folder.rglob("*")) if path.is_file()] if folder is not None else []
    for what, tried in (
        ("files", try_all((str(path), path.read_bytes()) for path in given)),
        ("damaged", try_all((f"damaged {number}", data) for number, data in enumerate(damaged(files, count)))),
    ):
        print(what, dict(tried.ends), f"memory {memory() - before:+.0f} MB", *tried.faults, sep="\n  ")
        faults += len(tried.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
