"""What a request says: the JSON body, and the same as query parameters or multipart fields.

`Body` is the one list of what there is; `with_options` lays texts of the query or of fields over it, read by the
type of each: `k=5`, `exact=true`, `include=metadata,vector`, and JSON for `filter`, `metadata` and `items`.
Left out: images that come as files, and what it all means (`serving.protocol.wire`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from serving.protocol.messages import RequestError


class ExampleBody(msgspec.Struct, forbid_unknown_fields=True):
    """A positive or a negative: exactly one of the three. `image` as in `ItemBody`."""

    id: str | None = None
    image: str | None = None
    vector: list[float] | None = None


class ItemBody(msgspec.Struct, forbid_unknown_fields=True):
    """An item to store; `image` is base64, a data URI, or the name of a file that is sent along."""

    id: str
    image: str
    label: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON body. Images are base64 or data URIs; `image`, `id` and `vector` are short for lists of one."""

    op: str | None = None
    image: str | None = None
    images: list[str] = msgspec.field(default_factory=list)
    id: str | None = None
    ids: list[str] = msgspec.field(default_factory=list)
    vector: list[float] | None = None
    vectors: list[list[float]] = msgspec.field(default_factory=list)
    positives: list[str | ExampleBody] = msgspec.field(default_factory=list)
    negatives: list[str | ExampleBody] = msgspec.field(default_factory=list)
    k: int | None = None
    offset: int | None = None
    min_score: float | None = None
    exact: bool | None = None
    group_by: str | None = None
    filter: Any = None
    include: list[str] = msgspec.field(default_factory=list)
    items: list[ItemBody] = msgspec.field(default_factory=list)
    label: str | None = None
    metadata: dict[str, Any] | None = None
    limit: int | None = None
    cursor: str | None = None
    name: str | None = None
    replace: bool | None = None
    encoding_format: str | None = None


def read_json(value: Any) -> Body:
    """The JSON body, as bytes, text, or decoded already. Raises `RequestError`."""
    body: Body = _decoded(value, Body, "the JSON body")
    return body


def with_options(body: Body, options: Mapping[str, Any]) -> Body:
    """`body` with these texts (str or UTF-8 bytes) laid over it. Raises `RequestError` that names the option."""
    given = {name: _READERS[name](name, _text(name, value)) for name, value in options.items()}
    return msgspec.structs.replace(body, **given)


def is_option(name: str) -> bool:
    """Whether a query parameter or field of this name says something, and is no image."""
    return name in _READERS


def _decoded(value: Any, kind: Any, what: str) -> Any:
    try:
        if isinstance(value, bytes | bytearray | str):
            return msgspec.json.decode(value if isinstance(value, str) else bytes(value), type=kind)
        return msgspec.convert(value, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{what} can't be read: {error}") from error


def _text(name: str, value: Any) -> str:
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise RequestError(f"{name} must be text") from error


def _plain(name: str, text: str) -> str:
    return text


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"{name} is {text!r}; it must be a whole number") from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{name} is {text!r}; it must be a number") from None


def _flag(name: str, text: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in flags:
        raise RequestError(f"{name} is {text!r}; it must be true or false")
    return flags[text.lower()]


def _names(name: str, text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _json_of(kind: Any) -> Callable[[str, str], Any]:
    return lambda name, text: _decoded(text, kind, f"{name}, which is JSON,")


_READERS: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("op", "id", "label", "group_by", "cursor", "name", "encoding_format"), _plain),
    **dict.fromkeys(("k", "offset", "limit"), _whole),
    "min_score": _number,
    "exact": _flag,
    "replace": _flag,
    "include": _names,
    "filter": _json_of(Any),
    "metadata": _json_of(dict[str, Any]),
    "items": _json_of(list[ItemBody]),
    "ids": _json_of(list[str]),
    "positives": _json_of(list[str | ExampleBody]),
    "negatives": _json_of(list[str | ExampleBody]),
}
OPTIONS = tuple(_READERS)
