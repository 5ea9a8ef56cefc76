"""simplejpeg against Pillow: the same pixels at full size, nearly the same embedding where it was scaled down."""

import io
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image, ImageOps

from core.images import decode as images
from core.images.decode import decode, open_upright, square
from core.images.jpeg import decode_jpeg, jpeg_size
from serving.engine import Engine
from tests.conftest import Chain


def photographs() -> dict[str, bytes]:
    """Real photographs that installed libraries bring."""
    folder = Path(sklearn.datasets.__file__).parent / "images"
    return {
        "china": (folder / "china.jpg").read_bytes(),
        "flower": (folder / "flower.jpg").read_bytes(),
        "hopper": Path(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes(),
    }


def by_pillow(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def written(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return by_pillow(photographs()["china"]).crop((200, 100, 337, 191))  # odd sizes


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 2}, {"progressive": True}]
)
def test_full_size_gives_pillows_pixels(picture: Image.Image, options: dict[str, Any]) -> None:
    data = written(picture, **options)
    assert jpeg_size(data) == picture.size
    assert (np.asarray(open_upright(data)) == np.asarray(by_pillow(data))).all()


def test_grey_gives_pillows_pixels(picture: Image.Image) -> None:
    data = written(picture.convert("L"))
    assert (np.asarray(open_upright(data)) == np.asarray(by_pillow(data))).all()


def test_cifar_images_give_pillows_pixels(chain: Chain) -> None:
    for data in chain.test_files():
        assert (np.asarray(open_upright(data)) == np.asarray(by_pillow(data))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(picture, exif=exif)
    assert (np.asarray(open_upright(data)) == np.asarray(by_pillow(data))).all()


def test_cmyk_is_left_to_pillow(picture: Image.Image) -> None:
    assert jpeg_size(written(picture.convert("CMYK"))) is None


def test_a_picture_comes_no_smaller_than_six_times_what_is_wanted() -> None:
    for data in photographs().values():
        whole = jpeg_size(data)
        assert whole is not None
        for side in (8, 16, 32, 64, 224):
            found = decode_jpeg(data, least=6 * side)
            assert found is not None
            assert min(found.size) >= min(*whole, 6 * side)
            assert found.size[0] / whole[0] == pytest.approx(found.size[1] / whole[1], rel=0.02)
    assert decode_jpeg(photographs()["china"], least=6 * 16).size[0] == 640 / 4  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["china", "flower", "hopper"])
def test_the_embedding_of_a_scaled_decode_is_that_of_the_full_one(engine: Engine, name: str) -> None:
    data = photographs()[name]
    size = engine.manifest.input.size
    full = np.asarray(square(by_pillow(data), size))
    scaled = decode(data, size)
    embedding = engine.embed(np.stack([full, scaled])).embedding
    assert embedding[0] @ embedding[1] >= 0.999
    assert np.abs(full.astype(int) - scaled).mean() < 3


def test_a_truncated_file_is_pillows_error(picture: Image.Image) -> None:
    data = written(picture)
    assert decode_jpeg(data[: len(data) // 2]) is None
    with pytest.raises(images.ImageError, match="broken"):
        decode(data[: len(data) // 2], 32)


def test_the_limit_of_pixels_holds_before_decoding(picture: Image.Image) -> None:
    with pytest.raises(images.ImageTooLarge, match="137x91 pixels"):
        decode(written(picture), 32, images.Limits(max_pixels=1000))
