"""The media types in which a reply can come, and which of them an Accept header asks for (RFC 9110, section 12.5.1)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

MediaType = Literal["application/json", "application/x-npy", "application/octet-stream", "image/*"]
JSON: Final = "application/json"
NPY: Final = "application/x-npy"
RAW: Final = "application/octet-stream"
PICTURE: Final = "image/*"  # whatever type the picture of an item has

JSON_REPLIES: tuple[MediaType, ...] = (JSON,)
EMBEDDING_REPLIES: tuple[MediaType, ...] = (JSON, NPY, RAW)
PICTURE_REPLIES: tuple[MediaType, ...] = (JSON, PICTURE)


class MediaRange(NamedTuple):
    """One entry of an Accept header; `kind` is in lower case, as `text/html`, `image/*` or `*/*`."""

    kind: str
    quality: float
    parameters: Mapping[str, str]


@lru_cache(maxsize=256)
def media_ranges(header: str) -> tuple[MediaRange, ...]:
    """The entries of an Accept header in its order, but for those whose `q` is no number from 0 to 1."""
    ranges = (_range(part) for part in header.split(",") if part.strip())
    return tuple(one for one in ranges if 0 <= one.quality <= 1)


@lru_cache(maxsize=256)
def best_of(offers: tuple[MediaType, ...], header: str) -> MediaType | None:
    """The offer that the header prefers; None if it accepts none. No header accepts anything.

    Of equals the one that the header names first, then the first offer; but a picture where the header begins with an
    image type, as browsers do for an image in a page and not for a page.
    """
    if not header.strip():
        return offers[0]
    ranges = media_ranges(header)
    if ranges and ranges[0].kind.startswith("image/"):
        offers = tuple(sorted(offers, key=lambda offer: offer != PICTURE))
    best = max(offers, key=lambda offer: _preference(offer, ranges))
    return best if _preference(best, ranges)[0] > 0 else None


def _preference(offer: MediaType, ranges: Sequence[MediaRange]) -> tuple[float, int]:
    """The quality of the most specific range that covers the offer, and a number that is greater for earlier ranges."""
    whole = offer.partition("/")[0] + "/*"
    for kind in (offer, whole, "*/*"):
        if found := [(one.quality, -at) for at, one in enumerate(ranges) if one.kind == kind]:
            return max(found)
    # The type of a picture is known only once it is found, so a header that names any image type may accept it.
    images = [(one.quality, -at) for at, one in enumerate(ranges) if one.kind.startswith("image/")]
    return max(images, default=(0.0, 0)) if offer == PICTURE else (0.0, 0)


def _range(part: str) -> MediaRange:
    kind, *rest = (piece.strip() for piece in part.split(";"))
    pairs = (piece.partition("=") for piece in rest)
    parameters = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = -1.0
    return MediaRange(kind.lower(), quality, parameters)
