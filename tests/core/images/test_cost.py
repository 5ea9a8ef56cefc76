"""Small files that would cost much, and what one file costs at most."""

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.images.decode import ImageError, ImageTooLarge, Limits, decode, open_upright
from tests.core.images.test_decode import encoded, halves


def scanned(side: int, more: int) -> bytes:
    """A flat progressive JPEG with its last scan `more` times again."""
    data = encoded(Image.new("RGB", (side, side), (9, 99, 200)), "JPEG", progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * more + data[-2:]


def peak() -> float:
    """The most RAM that this process held since it was last asked, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def test_a_jpeg_of_thousands_of_scans_is_refused_before_they_cost() -> None:
    data = scanned(1000, 2000)
    start = time.thread_time()
    with pytest.raises(ImageError, match=r"2\d\d\d scans of 1000x1000 pixels") as caught:
        decode(data, 32)
    assert caught.value.status == 422
    assert time.thread_time() - start < 0.5
    assert decode(scanned(64, 2000), 32).shape == (32, 32, 3)  # a small picture may have as many


def test_scans_of_a_cmyk_jpeg_count_too() -> None:
    data = encoded(Image.new("CMYK", (1000, 1000)), "JPEG", progressive=True)
    data = data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 2000 + data[-2:]
    with pytest.raises(ImageError, match="scans of 1000x1000"):
        decode(data, 32)


def test_a_file_that_takes_longer_than_allowed_is_refused() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8))
    with pytest.raises(ImageError, match=r"takes more than 0\.01 s"):
        decode(encoded(noise), 32, Limits(max_seconds=0.01))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bits_take_memory_in_proportion_to_the_picture(form: str) -> None:
    side = 4000
    data = encoded(
        Image.fromarray(np.zeros((side, side), np.uint16)),
        form,
        **({"compression": "tiff_lzw"} if form == "TIFF" else {}),
    )
    peak()
    before = peak()
    decode(data, 32)
    assert peak() - before < 8 * side * side / 1e6


def test_an_icon_is_as_large_as_the_picture_in_it() -> None:
    png = encoded(Image.new("1", (9000, 9000)))
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png
    with pytest.raises(ImageTooLarge, match="9000x9000"):
        decode(icon, 32)
    bitmap = struct.pack("<IiiHHIIiiII", 40, 9000, 18000, 1, 32, 0, 0, 0, 0, 0, 0)
    icon = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(bitmap), 22) + bitmap
    with pytest.raises(ImageTooLarge, match="9000x9000"):
        decode(icon, 32)


def test_the_largest_picture_of_an_icon_is_taken() -> None:
    file = io.BytesIO()
    halves().resize((64, 64)).save(file, "ICO", sizes=[(16, 16), (48, 48), (32, 32)])
    assert open_upright(file.getvalue()).size == (48, 48)


def test_a_tile_larger_than_the_limit_is_refused() -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(ImageTooLarge, match="60000x60000"):
        decode(b"II*\x00" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4), 32)


def test_a_large_jpeg_2000_is_decoded_at_a_fraction() -> None:
    data = encoded(halves().resize((2000, 1000)), "JPEG2000")
    assert min(open_upright(data, side=32).size) == 250
    small, whole = decode(data, 32).astype(int), decode(data, 32, margin=0).astype(int)
    assert np.abs(small - whole).mean() < 3
