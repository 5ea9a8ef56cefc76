"""From plain values to a typed request; what is wrong is said by field, value and what is accepted.

All of it is read from the types of `serving.protocol.operations`, so a new field needs nothing here.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from serving.protocol.body import read_json
from serving.protocol.messages import RequestError
from serving.protocol.operations import OPERATIONS, NewItem, Operation, Request, UpsertRequest

SINGULAR = {
    "images": "image",
    "ids": "id",
    "vectors": "vector",
    "keys": "key",
}  # a field for one, in place of a list of one
NO_OPTIONS = ("image", "images", "vector", "vectors")  # fields that no text stands for
_CARRIED = range(-(2**63), 2**64)
_PLACE = re.compile(r" - at `\$\.(\w+)(.*)`$")
_FIELDS = {name: {one.name: one for one in msgspec.structs.fields(row.request)} for name, row in OPERATIONS.items()}


def _type_of(annotated: Any) -> inspect.Type:
    """The type itself, where it may also be None."""
    kind = inspect.type_info(annotated)
    if isinstance(kind, inspect.UnionType):
        return next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return kind


_TYPES = {op: {name: _type_of(one.type) for name, one in fields.items()} for op, fields in _FIELDS.items()}


def _accepted_fields(row: Operation) -> tuple[str, ...]:
    names = row.request.__struct_fields__
    if row.request is UpsertRequest:  # of a single item, each field beside the others, and the image in a list too
        return (*names, *NewItem.__struct_fields__, "images")
    return tuple(one for name in names for one in (SINGULAR.get(name), name) if one is not None)


ACCEPTED = {name: _accepted_fields(row) for name, row in OPERATIONS.items()}  # by operation, every field it may have
OPTIONS = frozenset(("op", *(name for names in ACCEPTED.values() for name in names))) - set(NO_OPTIONS)


def request_from(values: Mapping[str, Any], kind: type[Request], op: str) -> Request:
    """`values` as a request of type `kind`. Raises `RequestError`."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise _explained(error, values, op) from error


def value_from_text(text: str, name: str, op: str) -> Any:
    """What a text of the query or a form says for one field. Raises `RequestError`."""
    kind = _TYPES[op].get(name)
    if name != "metadata" and (kind is None or isinstance(kind, inspect.StrType | inspect.LiteralType)):
        return text  # a single id and the label of a single item are no fields of their own
    if isinstance(kind, inspect.FrozenSetType):
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(kind, inspect.IntType | inspect.FloatType | inspect.BoolType):
        try:
            return msgspec.convert(text, _FIELDS[op][name].type, strict=False)
        except msgspec.ValidationError as error:
            raise _wrong_value(name, text, kind) from error
    return read_json(text, kind=Any, what=f"{name}, which is JSON,")


def check_taken(name: str, value: Any, op: str) -> bool:
    """Whether the operation takes this field; if it does not, the value must be one that asks for nothing.

    A field that went unheeded would seem to have been heeded. Raises `RequestError`.
    """
    if name in ACCEPTED[op]:
        return True
    takers = [other for other, names in ACCEPTED.items() if name in names]
    if not takers:
        raise RequestError(f"{name!r} is no option of {op}; it takes {', '.join(ACCEPTED[op]) or 'none'}")
    defaults = [_FIELDS[other][name].default for other in takers if name in _FIELDS[other]]
    if value and value not in defaults:
        raise RequestError(f"{op} takes no {name}; {_are_for(name)} {', '.join(takers)}")
    return False


def check_numbers(name: str, value: Any) -> None:
    """Raise `RequestError` for a whole number that no message to a worker can carry, however deep in plain JSON."""
    if isinstance(value, int) and value not in _CARRIED:
        raise RequestError(f"{name} has {value!r:.80}; whole numbers go from -2^63 to 2^64 - 1")
    if isinstance(value, dict | list):
        try:
            for inner in value.values() if isinstance(value, dict) else value:
                check_numbers(name, inner)
        except RecursionError as error:
            raise RequestError(f"{name} is nested too deeply") from error


def _explained(error: msgspec.ValidationError, values: Mapping[str, Any], op: str) -> RequestError:
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", str(error)):
        return RequestError(_needed(missing[1], op))
    place = _PLACE.search(str(error))
    if place is None or place[1] not in _FIELDS[op]:
        return RequestError(str(error))
    name, value, kind = place[1], values[place[1]], _TYPES[op][place[1]]
    if isinstance(kind, inspect.FrozenSetType) and isinstance(value, list):
        accepted = kind.item_type.values if isinstance(kind.item_type, inspect.LiteralType) else ()
        wrong = next(one for one in value if one not in accepted)
        return RequestError(f"{name} has {wrong!r}; {op} accepts {', '.join(map(str, accepted))} there")
    if isinstance(kind, inspect.VarTupleType) and isinstance(value, list | tuple):
        if not value:
            return RequestError(_needed(name, op))
        if not place[2]:
            return RequestError(f"{len(value)} {name} in one request; at most {kind.max_length}", 413)
        if "matching regex" in str(error):
            return RequestError(f"{name} has an id with the character U+0000, which no id may have")
        return RequestError(f"{name} can't be read: {error}")
    if value == "":
        return RequestError(_needed(name, op))
    return _wrong_value(name, value, kind)


def _needed(name: str, op: str) -> str:
    return f"{op} needs at least one {name.removesuffix('s')}" if name.endswith("s") else f"{op} needs a {name}"


def _wrong_value(name: str, value: Any, kind: inspect.Type) -> RequestError:
    return RequestError(f"{name} is {value!r:.80}; it must be {_accepted(kind)}")


def _accepted(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        number = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
        return f"{number} from {kind.ge} to {kind.le}" if kind.ge is not None and kind.le is not None else number
    if isinstance(kind, inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, inspect.StrType):
        return "text"
    return "true or false" if isinstance(kind, inspect.BoolType) else "a list"


def _are_for(name: str) -> str:
    return "they are for" if name.endswith("s") else "it is for"
