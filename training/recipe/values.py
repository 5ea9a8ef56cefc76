"""Plain values to frozen dataclasses by msgspec, with errors that name the key, its value and what is accepted.

The dataclasses say types and ranges in their annotations: `Annotated[float, Meta(ge=0, le=1)]`, `Literal["a", "b"]`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")

_NUMBERS = {int: "whole numbers", float: "numbers"}


def build(kind: type[T], values: Any) -> T:
    """An instance of the dataclass `kind` from mappings, lists, numbers and text; absent keys take their defaults.

    Raises ValueError for an unknown key, a value of the wrong type or range, or one that the dataclass refuses.
    """
    try:
        made = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):  # the dataclass's own
            raise error.__cause__ from None
        raise ValueError(_refusal(kind, values, str(error))) from None
    _refuse_unknown(values, dataclasses.asdict(made))  # type: ignore[call-overload]
    return made


def check(made: Any, path: str = "") -> None:
    """For `__post_init__`: ValueError for a field out of its range, or not among its literals.

    `path` is the prefix of the keys in errors, "encoder." for instance.
    """
    for name, hint in _hints(type(made)).items():
        if get_origin(hint) in (Annotated, Literal):
            value = getattr(made, name)
            try:
                msgspec.convert(value, hint)
            except msgspec.ValidationError:
                raise ValueError(f"{path}{name} is {value!r}; accepted: {_accepted(hint)}") from None


def parse(value: Any) -> Any:
    """Text as JSON where it is that (".1" too, as people write it), else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(re.sub(r"^(-?)\.", r"\g<1>0.", value))
    except json.JSONDecodeError:
        return value


def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _refusal(kind: Any, value: Any, message: str) -> str:
    """msgspec's message, which ends with a path such as $.resolutions[0].size, in our words."""
    path = message.rpartition("`$")[2].rstrip("`").lstrip(".")
    for name, place in re.findall(r"(\w+)|\[(\d+)\]", path):
        kind = _hints(kind)[name] if name else get_args(kind)[0]
        value = value[name] if name else value[int(place)]
    return f"{path or 'the whole'} is {value!r}; accepted: {_accepted(kind)}"


def _accepted(kind: Any) -> str:
    """What a type takes, in words."""
    if dataclasses.is_dataclass(kind):
        return f"a mapping with the keys {', '.join(field.name for field in dataclasses.fields(kind))}"
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is Annotated:
        bare, limits = get_args(kind)
        return f"{_NUMBERS[bare]} from {limits.ge} to {limits.le}"
    return "a list" if get_origin(kind) is tuple else _NUMBERS.get(kind, kind.__name__)


def _refuse_unknown(given: Any, known: Any, path: str = "") -> None:
    """msgspec passes over keys that a dataclass does not have."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"unknown key {path + name!r}; known keys: {', '.join(known)}")
            _refuse_unknown(value, known[name], f"{path}{name}.")
    elif isinstance(given, list | tuple):
        for place, (value, there) in enumerate(zip(given, known, strict=True)):
            _refuse_unknown(value, there, f"{path.removesuffix('.')}[{place}].")
