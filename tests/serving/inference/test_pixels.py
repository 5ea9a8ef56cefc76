"""A request of small files with many pixels is refused before anything is decoded, with the number in the message."""

import io
import time

from PIL import Image

from serving.engine import Engine
from serving.inference.pixels import REQUEST_PIXELS, too_many_pixels
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import EmbedRequest
from tests.conftest import Chain


def large() -> bytes:
    """16 megapixels in a few kilobytes."""
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "PNG")
    return file.getvalue()


def test_a_request_of_a_thousand_megapixels_is_refused_at_once_and_alone(chain: Chain, engine: Engine) -> None:
    image = large()
    assert 64 * len(image) < 2 << 20
    started = time.monotonic()
    refused, answer = engine.answer([EmbedRequest((image,) * 64), EmbedRequest((chain.test_files()[0],))])
    assert time.monotonic() - started < 2
    assert isinstance(refused, RequestError)
    assert refused.status == 413
    assert f"{64 * 16_000_000} pixels in all; at most {REQUEST_PIXELS}" in str(refused)
    assert isinstance(answer, Answer)


def test_a_request_within_the_budget_is_answered_and_broken_files_count_as_none(chain: Chain) -> None:
    image = large()
    assert too_many_pixels((image,) * 32) is None
    assert too_many_pixels((image,) * 33) == 33 * 16_000_000
    assert too_many_pixels((image,) * 32 + (b"no image", b"", *chain.test_files()[:20])) is not None
    assert too_many_pixels((b"no image", b"", image[:50]) * 20) is None
