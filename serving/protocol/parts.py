"""From what HTTP carries to a `Body`: the pairs of the query, and the parts of the body in their order.

Names may repeat in both, and nothing is dropped without a word. Whoever reads the HTTP, the gateway or TorchServe,
calls this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.protocol.body import Body, given_twice, read_json, text_of
from serving.protocol.media_types import JSON, media_ranges
from serving.protocol.messages import RequestError
from serving.protocol.validation import NO_OPTIONS, OPTIONS

BODY = "body"  # the part that a body without parts is
MAX_FIELDS = 256  # of the query and the parts together


@dataclass(frozen=True)
class Part:
    """A part of a form, or a whole body that is none, called "body".

    `media_type` is None for a text field, which is what has no file name in a form; a file that names no type has
    "application/octet-stream". Of a whole body it is the Content-Type header, or None.
    """

    name: str
    content: bytes
    media_type: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether its media type is JSON, with whatever parameters."""
        return (self.media_type or "").split(";")[0].strip().lower() == JSON


def body_from(query: Sequence[tuple[str, str]], parts: Sequence[Part], *, accept: str = "") -> Body:
    """What a request brings; an encoding that the Accept header asks for holds where nothing else names one.

    Raises `RequestError`: 413 for more than `MAX_FIELDS` pairs and parts, 400 for a part that can't be read.
    """
    check_count(len(query) + len(parts))
    said: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    files: list[tuple[str, bytes]] = []
    for name, text in query:
        texts.setdefault(name, []).append(_option(name, text))
    for part in parts:
        if part.name in OPTIONS:
            texts.setdefault(part.name, []).append(text_of(part.name, part.content))
        elif part.is_json:
            said = _joined(said, read_json(part.content))
        elif part.name == BODY or part.media_type is not None:
            files += [(part.name, part.content)] if part.name != BODY or part.content else []
        else:  # if no operation takes it, that is said where the operation is known
            texts.setdefault(part.name, []).append(_option(part.name, text_of(part.name, part.content)))
    return Body(_said_by(accept) | said, texts, files)


def check_count(count: int) -> None:
    """Refuse a request of more than `MAX_FIELDS` query parameters and parts, with 413."""
    if count > MAX_FIELDS:
        raise RequestError(f"{count} query parameters and parts in one request; at most {MAX_FIELDS}", 413)


def _option(name: str, text: str) -> str:
    if name in NO_OPTIONS:
        raise RequestError(f"field {name!r} is text; send an image as a file, and a vector in JSON")
    return text


def _joined(said: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The fields of two parts that are JSON."""
    for name in said.keys() & more.keys():
        if said[name] != more[name]:
            raise given_twice(name, said[name], more[name])
    return said | more


def _said_by(accept: str) -> dict[str, Any]:
    """An encoding asked for by a parameter of the media type: `application/octet-stream; encoding_format=int8`."""
    name = "encoding_format"
    asked = [one.parameters[name].lower() for one in media_ranges(accept) if name in one.parameters]
    return {name: asked[0]} if asked else {}
