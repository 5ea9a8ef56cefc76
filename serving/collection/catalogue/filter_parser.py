"""A filter as people write it in JSON, read into `serving.collection.catalogue.filters`; errors name the key and the
value.

    {"label": "cat"}                             equals; the values are text, numbers, booleans or null
    {"colour": {"in": ["red", "blue"]}}          one of
    {"price": {"gte": 1, "lt": 5}}               gt, gte, lt, lte: all numbers, or all text
    {"camera": {"exists": true}}                 the key has a value, here or below ("camera.make")
    {"and": [...]}, {"or": [...]}, {"not": ...}  several keys in one object: all of them

Keys are those of the metadata, nested ones joined by dots, and id, label, media_type (text), bytes, created and
updated (numbers; times in milliseconds since 1970).
"""

from typing import Any

from serving.collection.catalogue.filters import EVERYTHING, All, Bound, Either, Exists, Filter, Negation, OneOf, Range
from serving.collection.catalogue.metadata import (
    BUILT_IN,
    CONNECTIVES,
    MAX_KEY_BYTES,
    Scalar,
    scalar_problem,
    text_problem,
)
from serving.collection.errors import FilterError

MAX_DEPTH = 16
MAX_CONDITIONS = 256
MAX_VALUES = 10_000  # of a whole filter: each is a parameter of one SQL statement
_ENDS = {"gt": False, "gte": True, "lt": False, "lte": True}
_TESTS = ("in", "exists", *_ENDS)
_TEXT_COLUMNS = ("id", "label", "media_type")


def parse_filter(written: Any) -> Filter:
    """The filter; `{}` means everything. Raises `FilterError`."""
    if written == {}:
        return EVERYTHING
    return _Parser().group(written, "filter", depth=0)


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def group(self, written: Any, where: str, *, depth: int) -> Filter:
        """An object of keys that must all hold."""
        if depth > MAX_DEPTH:
            raise FilterError(f"the filter is nested more than {MAX_DEPTH} deep")
        if not isinstance(written, dict) or not written:
            raise FilterError(f'{where} is {_shown(written)}; it must be an object such as {{"label": "cat"}}')
        parts = [part for key, value in written.items() for part in self._entry(key, value, depth=depth)]
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _entry(self, key: Any, value: Any, *, depth: int) -> list[Filter]:
        if problem := text_problem(key, 9 * MAX_KEY_BYTES):
            raise FilterError(f"a key of the filter {problem}")
        if key == "not":
            return [Negation(self.group(value, f"filter key {key!r}", depth=depth + 1))]
        if key in CONNECTIVES:
            return [self._connected(key, value, depth=depth)]
        equals = not isinstance(value, dict)
        tests: list[Filter] = [OneOf(key, (self._scalar(key, value),))] if equals else self._tests(key, value)
        self._conditions += len(tests)
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(f"the filter has more than {MAX_CONDITIONS} conditions, at key {key!r}")
        return tests

    def _connected(self, key: str, value: Any, *, depth: int) -> Filter:
        if not isinstance(value, list) or not value:
            raise FilterError(f"filter key {key!r} is {_shown(value)}; it must be a list of at least one filter")
        parts = tuple(self.group(part, f"an element of filter key {key!r}", depth=depth + 1) for part in value)
        return All(parts) if key == "and" else Either(parts)

    def _tests(self, key: str, tests: dict[Any, Any]) -> list[Filter]:
        for name in tests:
            if name not in _TESTS:
                raise FilterError(f"filter key {key!r} has {_shown(name)}; accepted: {', '.join(_TESTS)}")
        found: list[Filter] = []
        if "in" in tests:
            found.append(OneOf(key, self._list(key, tests["in"])))
        if ends := {name: self._end(key, name, tests[name]) for name in _ENDS if name in tests}:
            found.append(_range(key, ends))
        if "exists" in tests:
            if not isinstance(tests["exists"], bool):
                raise FilterError(f"filter key {key!r}: exists is {_shown(tests['exists'])}; it must be true or false")
            found.append(Exists(key, tests["exists"]))
        if not found:
            raise FilterError(f"filter key {key!r} has no test; accepted: {', '.join(_TESTS)}")
        return found

    def _list(self, key: str, values: Any) -> tuple[Scalar, ...]:
        if not isinstance(values, list):
            raise FilterError(f"filter key {key!r}: in is {_shown(values)}; it must be a list")
        return tuple(self._scalar(key, value) for value in values)

    def _end(self, key: str, name: str, value: Any) -> str | int | float:
        self._scalar(key, value)
        if value is None or isinstance(value, bool):
            raise FilterError(f"filter key {key!r}: {name} is {_shown(value)}; it must be a number or text")
        return value  # type: ignore[no-any-return]

    def _scalar(self, key: str, value: Any) -> Scalar:
        self._values += 1
        if self._values > MAX_VALUES:
            raise FilterError(f"the filter has more than {MAX_VALUES} values, at key {key!r}")
        if problem := scalar_problem(value):
            raise FilterError(f"filter key {key!r} {problem}")
        if key in BUILT_IN and value is not None:
            accepted = str if key in _TEXT_COLUMNS else (int, float)
            if isinstance(value, bool) or not isinstance(value, accepted):
                kind = "text" if accepted is str else "a number"
                raise FilterError(f"filter key {key!r} is {_shown(value)}; it must be {kind}")
        return value  # type: ignore[no-any-return]


def _range(key: str, ends: dict[str, str | int | float]) -> Range:
    for pair in (("gt", "gte"), ("lt", "lte")):
        if all(name in ends for name in pair):
            raise FilterError(f"filter key {key!r} has both {pair[0]} and {pair[1]}; give one of them")
    if len({isinstance(value, str) for value in ends.values()}) > 1:
        raise FilterError(f"filter key {key!r} has ends {ends}; both must be numbers, or both text")
    bounds = {name[0]: Bound(value, _ENDS[name]) for name, value in ends.items()}
    return Range(key, bounds.get("g"), bounds.get("l"))


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
