"""Metadata in any state, anywhere: the orientation is found, and sound pixels are decoded."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from core.images.decode import ImageError, open_upright
from tests.core.images.test_decode import encoded, halves, near

_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def lying() -> bytes:
    """EXIF of a picture that is to be shown rotated clockwise."""
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()


_PROFILE = b"\nexif\n 99\n" + lying().hex().encode()  # as ImageMagick writes it


def upright(data: bytes) -> bool:
    """Whether `halves` comes out 20 wide and 40 high, with red above blue."""
    picture = open_upright(data)
    top, bottom = picture.getpixel((10, 5)), picture.getpixel((10, 35))
    return picture.size == (20, 40) and near(top, (255, 0, 0), 40) and near(bottom, (0, 0, 255), 40)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes, *, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) & 1)


def jpeg(*segments: bytes, mode: str = "RGB") -> bytes:
    data = encoded(halves(mode), "JPEG", quality=95)
    return data[:2] + b"".join(segments) + data[2:]


def png(*before: bytes, after: bytes = b"") -> bytes:
    data = encoded(halves())
    return data[:33] + b"".join(before) + data[33:-12] + after + data[-12:]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_exif_behind_a_large_profile_turns_a_jpeg(mode: str) -> None:
    profile = [segment(0xE2, b"ICC_PROFILE\x00" + bytes(60_000)) for _ in range(4)]
    data = jpeg(*profile, segment(0xE1, lying()), mode=mode)
    assert open_upright(data).size == (20, 40)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00" + _XMP)),
        png(after=chunk(b"eXIf", lying()[6:])),
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + _XMP)),
        png(chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(_XMP))),
        png(
            chunk(b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(b"\nexif\n 99\n" + lying().hex().encode()))
        ),
        encoded(halves(), "WEBP", exif=lying(), lossless=True),
        encoded(halves(), "WEBP", xmp=_XMP, lossless=True),
        encoded(halves(), "TIFF", tiffinfo={274: 6}),
        encoded(halves(), "TIFF", tiffinfo={274: 6}, compression="tiff_lzw"),
        encoded(halves(), "TIFF", tiffinfo={274: 6}, big_tiff=True),
        encoded(halves(), "TIFF", tiffinfo={700: _XMP}),
        encoded(halves(), "AVIF", exif=lying(), quality=95),
        encoded(halves(), "HEIF", exif=lying(), quality=95),
        encoded(halves(), "JPEG2000") + b"\x00\x00\x00\x00uuidJpgTiffExif->JP2" + lying()[6:],
    ],
)
def test_the_orientation_is_found_wherever_it_may_stand(data: bytes) -> None:
    assert upright(data)


def damaged_tags() -> bytes:
    """A TIFF whose resolution, software and private tags have impossible types and places."""
    data = bytearray(encoded(halves(), "TIFF", dpi=(72, 72), software="x" * 99, tiffinfo={274: 6, 65000: "y" * 99}))
    start = struct.unpack_from("<I", data, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] in (282, 283, 296, 305, 65000):
            data[at + 2 : at + 12] = b"\x0c\x00\xff\xff\xff\x7f\xf0\xff\xff\xff"
    return bytes(data)


_WEBP = encoded(halves(), "WEBP", exif=lying(), lossless=True)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(
            segment(0xE1, b"Exif\x00\x00II*\x00\xff\xff\xff\xff"),
            segment(0xE0, b"JFIF\x00"),
            segment(0xED, b"Photoshop 3.0\x00"),
        ),
        jpeg(segment(0xE1, b""), b"\xff\xfe\x00\x00", b"garbage between segments"),
        jpeg(segment(0xE1, lying()[:20]), mode="CMYK"),
        jpeg(segment(0xE2, b"MPF\x00II*\x00" + b"\xff" * 40), segment(0xEE, b"Adobe")),
        png(chunk(b"eXIf", b"II*\x00\xff\xff"), chunk(b"pHYs", b""), chunk(b"iCCP", b"x\x00\x00" + b"no zlib")),
        png(chunk(b"tEXt", b"a\x00b", crc=0), chunk(b"gAMA", b"\x00", crc=1), chunk(b"tRNS", b"\x00", crc=2)),
        png(chunk(b"zTXt", b"bomb\x00\x00" + zlib.compress(bytes(80 << 20)))),
        png(chunk(b"iCCP", b"bomb\x00\x00" + zlib.compress(bytes(80 << 20)))),
        png(*[chunk(b"tEXt", b"many\x00" + bytes(1 << 20))] * 12),
        png(b"\x7f\xff\xff\xfftEXta\x00b"),
        png()[:-12],
        png()[:-5],
        _WEBP[:-9],
        _WEBP + riff(b"EXIF", b"\xff\xff"),
        encoded(halves(), "TIFF", tiffinfo={34665: 4_000_000_000, 34853: 8}),
        encoded(halves(), "AVIF", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95),
        encoded(halves(), "HEIF", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95),
    ],
)
def test_damaged_and_large_metadata_keeps_no_sound_pixels_from_being_decoded(data: bytes) -> None:
    picture = np.asarray(open_upright(data))
    assert picture.size == 20 * 40 * 3
    assert near(picture[2, 2], (255, 0, 0), 40)
    assert near(picture[-2, -2], (0, 0, 255), 40)


def test_a_tiff_with_damaged_tags_is_still_turned() -> None:
    assert upright(damaged_tags())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_is_decoded(options: dict[str, Any], mode: str, cut: int) -> None:
    data = encoded(halves(mode), "JPEG", quality=95, **options)
    assert (np.asarray(open_upright(data[:-cut])) == np.asarray(open_upright(data))).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_pixels_is_refused(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encoded(noise.convert(mode), "JPEG")
    with pytest.raises(ImageError, match="JPEG image is broken"):
        open_upright(data[:-200])


def test_a_transparent_palette_and_text_with_a_name_are_no_metadata() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "hello")
    palette = halves().quantize(4)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=palette.getpixel((5, 10)), pnginfo=text)
    assert open_upright(file.getvalue()).getpixel((5, 10)) == (255, 255, 255)


@pytest.mark.parametrize(
    "start",
    [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"RIFF\x00\x00\x00\x00WEBP", b"\xff\x4f\xff\x51"],
)
def test_the_start_of_an_image_is_a_damaged_one(start: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        open_upright(start)
    assert caught.value.status == 422
