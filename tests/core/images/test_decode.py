import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.images.decode import ImageError, ImageFormatUnknown, ImageTooLarge, Limits, decode, open_upright


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def halves(mode: str = "RGB") -> Image.Image:
    """A picture with a red left and a blue right half, 40 wide and 20 high."""
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    image.paste((0, 0, 255), (20, 0, 40, 20))
    return image.convert(mode)


def near(pixel: Any, colour: tuple[int, int, int], by: int = 12) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= by)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_formats(form: str) -> None:
    picture = np.asarray(open_upright(encoded(halves(), form)))
    assert picture.shape == (20, 40, 3)
    assert near(picture[10, 5], (255, 0, 0))
    assert near(picture[10, 35], (0, 0, 255))


def test_an_image_of_the_right_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert (decode(encoded(Image.fromarray(pixels)), 16) == pixels).all()


def test_the_centre_square_is_cut_out() -> None:
    wide = Image.new("RGB", (90, 30), (0, 255, 0))
    wide.paste((255, 0, 0), (0, 0, 30, 30))
    wide.paste((0, 0, 255), (60, 0, 90, 30))
    assert (decode(encoded(wide), 30) == (0, 255, 0)).all()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: to be shown rotated clockwise
    upright = open_upright(encoded(halves(), "JPEG", exif=exif, quality=95))
    assert upright.size == (20, 40)
    assert near(upright.getpixel((10, 5)), (255, 0, 0))


def test_cmyk_becomes_rgb() -> None:
    picture = open_upright(encoded(halves("CMYK"), "JPEG", quality=95))
    assert near(picture.getpixel((5, 10)), (255, 0, 0))


def test_16_bit_grey_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(4, axis=0)
    grey = np.asarray(open_upright(encoded(Image.fromarray(ramp))))
    assert grey[0, :, 0].tolist() == (ramp[0] >> 8).tolist()
    assert (grey[..., 0] == grey[..., 2]).all()


def test_palette_with_transparency_lies_over_white() -> None:
    palette = halves().quantize(4)
    index = palette.getpixel((5, 10))
    picture = open_upright(encoded(palette, "PNG", transparency=index))
    assert picture.getpixel((5, 10)) == (255, 255, 255)
    assert near(picture.getpixel((35, 10)), (0, 0, 255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)
    assert (np.asarray(open_upright(encoded(image))) == 255).all()


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for form in ("GIF", "WEBP", "PNG", "MPO"):  # MPO: what cameras write for two pictures in one JPEG
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        assert near(open_upright(data).getpixel((4, 4)), (255, 0, 0)), form


def test_black_and_white_and_grey() -> None:
    for mode in ("1", "L"):
        image = Image.new(mode, (8, 8), 255 if mode == "L" else 1)
        assert (np.asarray(open_upright(encoded(image))) == 255).all()


def test_limits_name_the_value_and_the_bound() -> None:
    data = encoded(halves())
    with pytest.raises(ImageTooLarge, match=rf"{len(data)} bytes; at most 10 "):
        decode(data, 8, Limits(max_bytes=10))
    with pytest.raises(ImageTooLarge, match="40x20 pixels; at most 799 "):
        decode(data, 8, Limits(max_pixels=799))


def test_a_pixel_bomb_is_refused_before_it_is_decoded() -> None:
    whole = encoded(halves())
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + whole[24:29]  # bit depth, colour, and so on, as they were
    bomb = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    with pytest.raises(ImageTooLarge, match="60000x60000 pixels"):
        decode(bomb, 8)


@pytest.mark.parametrize(
    ("data", "error", "status"),
    [
        (b"", ImageError, 422),
        (b"hello, world: no image at all", ImageFormatUnknown, 415),
        (b"\x80\x04\x95", ImageFormatUnknown, 415),
        (b"%PDF-1.7 something", ImageFormatUnknown, 415),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, error: type[ImageError], status: int) -> None:
    with pytest.raises(error) as caught:
        decode(data, 8)
    assert caught.value.status == status


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_truncated_file_is_an_image_error(form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encoded(Image.fromarray(pixels), form)
    with pytest.raises(ImageError):
        decode(whole[: len(whole) // 2], 8)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF"])
def test_random_damage_never_raises_anything_else(form: str) -> None:
    rng = np.random.default_rng(1)
    whole = encoded(halves().resize((64, 64)), form)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            damaged[place] = rng.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert decode(bytes(damaged), 8, Limits(max_pixels=1_000_000)).shape == (8, 8, 3)
