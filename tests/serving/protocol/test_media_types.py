"""Which media type a reply has, by the rules of RFC 9110, section 12.5.1."""

import pytest

from serving.protocol.media_types import EMBEDDING_REPLIES, JSON, NPY, PICTURE, PICTURE_REPLIES, RAW, best_of


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("APPLICATION/X-NPY", NPY),
        ("application/json;q=0.5, application/x-npy", NPY),
        ("application/json;q=0.5, application/x-npy;q=0.4", JSON),
        ("application/x-npy;q=0.2, */*;q=0.1", NPY),
        ("application/x-npy;q=0, application/octet-stream;q=0, */*", JSON),
        ("application/json;q=0, */*", NPY),  # the more specific range goes before the general one
        ("*/*, application/json;q=0.5", NPY),
        ("application/*;q=0.3, application/octet-stream", RAW),
        ("application/octet-stream, application/json", RAW),  # of equals, the one named first
        ("application/octet-stream; encoding_format=int8; q=0.9, application/json;q=0.8", RAW),
        ("text/html, application/json;q=0", None),
        ("*/*;q=0", None),
        ("text/html", None),
        ("application/json;q=1.5", None),
        ("application/json;q=nonsense, application/x-npy;q=0.1", NPY),
        (", ,application/json,", JSON),
    ],
)
def test_of_embeddings(header: str, expected: str | None) -> None:
    assert best_of(EMBEDDING_REPLIES, header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("image/*", PICTURE),
        ("image/png", PICTURE),
        ("image/png;q=0", None),
        ("application/json, image/*;q=0.5", JSON),
        ("application/json;q=0.5, image/*", PICTURE),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", PICTURE),  # Chrome, for <img>
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", PICTURE),  # Firefox, for <img>
        ("image/avif,image/webp,*/*;q=0.8", PICTURE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", JSON),  # for a page
    ],
)
def test_of_an_item(header: str, expected: str | None) -> None:
    assert best_of(PICTURE_REPLIES, header) == expected
