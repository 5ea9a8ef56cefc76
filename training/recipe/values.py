"""Plain values to frozen dataclasses and back: every type checked, every error naming the key.

Knows nothing of what the dataclasses mean. Accepted field types are numbers, text, literals, other dataclasses,
and tuples of dataclasses, whose items may be short: the list of an item's values instead of a mapping.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints


def build(kind: type, values: Any, path: str = "") -> object:
    """An instance of the dataclass `kind`; absent keys take their defaults.

    `path` is the prefix of the keys in errors, "encoder." for instance. Raises ValueError for an unknown key, a
    value of the wrong type, or one that the dataclass itself refuses.
    """
    hints = get_type_hints(kind)
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{path.rstrip('.')} is {values!r}; a mapping of keys to values is needed ({', '.join(hints)})"
        )
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown key {path + unknown[0]!r}; known keys: {', '.join(hints)}")
    return kind(**{name: _typed(hints[name], value, path + name) for name, value in values.items()})


def parse(value: Any) -> Any:
    """Text as JSON where it is that (".1" too, as people write it), else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(re.sub(r"^(-?)\.", r"\g<1>0.", value))
    except json.JSONDecodeError:
        return value


def one_of(name: str, value: str, accepted: tuple[str, ...]) -> None:
    """ValueError unless `value` is among the accepted."""
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(accepted)}")


def between(name: str, value: float, low: float, high: float) -> None:
    """ValueError unless low <= value <= high."""
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} is {value}; accepted: {low} to {high}")


def _typed(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(cast(type, kind), value, f"{path}.")
    if get_origin(kind) is tuple:
        return _several(get_args(kind)[0], value, path)
    wanted = str if get_origin(kind) is Literal else kind
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{path} is {value!r}; a value of type {wanted.__name__} is needed")
    return value


def _several(kind: Any, values: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{path} is {values!r}; a list is needed")
    return tuple(_typed(kind, _named(kind, value), f"{path}[{number}]") for number, value in enumerate(values))


def _named(kind: Any, value: Any) -> Any:
    """[16, 0.55] as {"size": 16, "share": 0.55}; anything else as it is."""
    names = [field.name for field in dataclasses.fields(kind)]
    return dict(zip(names, value, strict=True)) if type(value) is list and len(value) == len(names) else value
