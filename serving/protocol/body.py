"""What a request brings, whichever way it came: fields of JSON, texts of a query or a form, and image files.

A text may stand for any field but an image or a vector: `k=5`, `exact=true`, `include=metadata,vector`, and JSON where
the field is a list or an object (`filter={"label": "cat"}`). Names may repeat; `serving.protocol.asking` says which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from serving.protocol.messages import RequestError


@dataclass(frozen=True)
class Body:
    """`said`: the fields of the JSON body; `texts`: by name those of the query and the form, which go before them.

    `files`: image files with the names of their form fields, in order; "body" is the body itself.
    """

    said: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()

    def text(self, name: str) -> str | None:
        """The one text of this name, if there is any. Raises `RequestError` if there are several that differ."""
        first, *others = self.texts.get(name) or (None,)
        for other in others:
            if other != first:
                raise given_twice(name, first, other)
        return first


def given_twice(name: str, first: Any, second: Any) -> RequestError:
    """The error of a field that can have one value only, and has two."""
    return RequestError(f"{name} is given twice, as {first!r:.80} and as {second!r:.80}; it may have one value")


def read_json(value: Any, *, kind: Any = dict[str, Any], what: str = "the JSON body") -> Any:
    """JSON as bytes or text, or decoded already, as an object of type `kind`. Raises `RequestError`."""
    try:
        if isinstance(value, bytes | bytearray | str):
            return msgspec.json.decode(value, type=kind)
        return msgspec.convert(value, kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{what} can't be read: {error}") from error


def text_of(name: str, value: Any) -> str:
    """A text, or UTF-8 bytes, as text. Raises `RequestError`."""
    try:
        return value if isinstance(value, str) else bytes(value).decode()
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise RequestError(f"{name} must be text") from error
