"""An item's metadata: a JSON object of limited size, and the terms (key, scalar) that filters look at.

The keys of nested objects are joined by dots, and each element of a list is a term of its own:
`{"camera": {"make": "X"}, "tags": ["a", "b"]}` has `camera.make: "X"`, `tags: "a"` and `tags: "b"`.
Names that people give (ids, labels, keys) are checked here too.
"""

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any

from serving.collection.errors import ItemError

Scalar = str | int | float | bool | None
Term = tuple[str, str | int | float | bytes]

BUILT_IN = ("id", "label", "created", "updated", "bytes", "media_type")
CONNECTIVES = ("and", "or", "not")
MAX_BYTES = 65_536
MAX_PATH_BYTES = 8_192  # of an archive, and of a member in it
MAX_DEPTH = 8
MAX_TERMS = 1_000
MAX_KEY_BYTES = 256
INTEGERS = range(-(2**63), 2**63)
_NULL, _FALSE, _TRUE = b"\x00", b"\x01", b"\x02"


def encode_metadata(metadata: Any) -> str:
    """The object as JSON text, its keys sorted; raises `ItemError` that names the key and the limit."""
    if not isinstance(metadata, dict):
        raise ItemError(f"metadata is {_shown(metadata)}; it must be a JSON object")
    for reserved in (*BUILT_IN, *CONNECTIVES):
        if reserved in metadata:
            raise ItemError(f"metadata key {reserved!r} is reserved, as filters use it: give it another name")
    _check(metadata, "metadata", depth=0)
    text = json.dumps(metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if len(text.encode()) > MAX_BYTES:
        raise ItemError(f"metadata takes {len(text.encode())} bytes as JSON; at most {MAX_BYTES}")
    if (count := len(terms_of(metadata))) > MAX_TERMS:
        raise ItemError(f"metadata has {count} different values; at most {MAX_TERMS}")
    return text


def merged(target: Any, patch: Any) -> Any:
    """`target` after a JSON merge patch (RFC 7396): null removes a key, objects are merged, all else is replaced."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def terms_of(metadata: dict[str, Any]) -> frozenset[Term]:
    """Every (key, value) of the metadata, the value as `stored_scalar` makes it."""
    return frozenset((key, stored_scalar(value)) for key, value in scalars_of(metadata))


def scalars_of(value: Any, key: str = "") -> Iterator[tuple[str, Scalar]]:
    """Every (key, scalar) at or below `value`, in order, repeated where the metadata repeats it."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from scalars_of(below, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for element in value:
            yield from scalars_of(element, key)
    else:
        yield key, value


def stored_scalar(value: Scalar) -> str | int | float | bytes:
    """The value as a term has it: numbers and text as they are; null, false and true as bytes, which equal neither."""
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return value


def scalar_stored(stored: str | int | float | bytes) -> str | int | float | bool:
    """The value that `stored_scalar` made a term of, other than null."""
    return stored == _TRUE if isinstance(stored, bytes) else stored


def _check(value: Any, where: str, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ItemError(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        for key, below in value.items():
            if problem := text_problem(key, MAX_KEY_BYTES):
                raise ItemError(f"a key of {where} {problem}")
            _check(below, f"{where}.{key}", depth=depth + 1)
    elif isinstance(value, list):
        for element in value:
            _check(element, where, depth=depth + 1)
    elif problem := scalar_problem(value):
        raise ItemError(f"{where} {problem}")


def scalar_problem(value: Any) -> str | None:
    """What keeps `value` from being a text, number, boolean or null that can be stored; None if nothing does."""
    if isinstance(value, str):
        return None if _is_utf8(value) else "is text with a lone surrogate, which UTF-8 does not have"
    if isinstance(value, int):
        return None if value in INTEGERS else f"is {_shown(value)}; integers must fit 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}; numbers must be finite"
    return None if value is None else f"is {_shown(value)}; a text, number, boolean or null is accepted"


def text_problem(value: Any, most_bytes: int) -> str | None:
    """What is wrong with a name, as the end of a sentence; None if it is non-empty UTF-8 without control characters."""
    if not isinstance(value, str):
        return f"is {value!r:.80}; it must be text"
    if not value:
        return "is empty"
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        return f"is {value!r:.80}, which is not valid UTF-8"
    if length > most_bytes:
        return f"is {value!r:.80} and takes {length} bytes; at most {most_bytes}"
    if any(unicodedata.category(character) == "Cc" for character in value):
        return f"is {value!r:.80}; control characters are not accepted"
    return None


def path_problem(value: str) -> str | None:
    """What is wrong with a picture's place; None for UTF-8 with any character that a path of the system may hold."""
    if not value:
        return "is empty"
    if not _is_utf8(value):
        return f"is {value!r:.80}, which is not valid UTF-8"
    if "\0" in value:
        return f"is {value!r:.80}; no path holds a NUL"
    length = len(value.encode())
    return f"takes {length} bytes; at most {MAX_PATH_BYTES}" if length > MAX_PATH_BYTES else None


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
