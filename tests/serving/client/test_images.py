"""The forms in which a client takes images, and what it sends of each."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.images.decode import open_upright
from serving.client.images import image_bytes, image_groups

WIDTH, HEIGHT = 24, 20


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)


def seen(image: Any) -> NDArray[np.uint8]:
    """The pixels that the server has of what is sent."""
    return np.asarray(open_upright(image_bytes(image)))


def test_image_files_are_sent_as_they_are(tmp_path: Path) -> None:
    content = b"whatever it is"
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    with path.open("rb") as file:
        for image in (path, str(path), content, bytearray(content), memoryview(content), file, io.BytesIO(content)):
            assert image_bytes(image) == content


def test_arrays_keep_every_pixel(pixels: NDArray[np.uint8]) -> None:
    for image in (pixels, pixels[::-1, ::2], np.asfortranarray(pixels)):
        np.testing.assert_array_equal(seen(image), image)
    (group,) = image_groups(np.stack([pixels, pixels]))
    assert group == [image_bytes(pixels)] * 2


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_every_mode(pixels: NDArray[np.uint8], mode: str) -> None:
    picture = Image.fromarray(pixels).convert(mode)
    np.testing.assert_array_equal(seen(picture), np.asarray(picture.convert("RGB")))


def test_a_picture_is_sent_as_its_file_would_be_seen(pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert seen(picture).shape == (WIDTH, HEIGHT, 3)
        np.testing.assert_array_equal(seen(picture), seen(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array float32 \(4, 4, 3\); it must be uint8 \(H, W, 3\)"),
        (np.zeros((4, 4), np.uint8), r"an array uint8 \(4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"an array uint8 \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"an array uint8 \(0, 4, 3\)"),
        (io.StringIO("text"), "opened for text"),
        (7, "an image is int; it may be bytes, a path"),
    ],
)
def test_what_is_no_image_is_refused_by_its_name(image: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_bytes(image)


@pytest.mark.parametrize("one", ["cat.jpg", Path("cat.jpg"), b"file", io.BytesIO(), np.zeros((4, 4, 3), np.uint8)])
def test_one_image_is_no_list_of_images(one: Any) -> None:
    with pytest.raises(ValueError, match="give a list, of one image too"):
        list(image_groups(one))


def test_groups_hold_what_one_request_may() -> None:
    assert [len(group) for group in image_groups([b"x"] * 130)] == [64, 64, 2]
    assert [len(group) for group in image_groups([bytes(20 << 20)] * 5)] == [2, 2, 1]
    assert [*image_groups([])] == [[]]
    assert [len(group) for group in image_groups([bytes(60 << 20), b"x"])] == [1, 1]


def test_images_are_read_when_their_group_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"file")
    groups = image_groups([path] * 64 + [tmp_path / "missing.jpg"])
    with pytest.raises(FileNotFoundError):
        next(groups)  # the next one begins with the file that is missing
