import io

import pytest
from PIL import Image

from core.images.formats import PILLOW_FORMATS, media_type_of


@pytest.mark.parametrize("name", PILLOW_FORMATS)
def test_the_media_type_is_that_of_the_format(name: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 10, 3)).save(file, name)
    assert media_type_of(file.getvalue()) == Image.MIME[name]


@pytest.mark.parametrize("data", [b"", b"P", b"GIF", b"<html><body>", b"PK\x03\x04"])
def test_what_is_no_image_is_plain_bytes(data: bytes) -> None:
    assert media_type_of(data) == "application/octet-stream"
