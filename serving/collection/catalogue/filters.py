"""Filters: which items are meant, as small values that SQLite and plain Python understand alike.

A condition looks at one key, of the metadata or one of the built-in columns; where the metadata has a list, any of
its elements may fulfil it. A negation holds wherever its part does not, also where the key is absent.
`to_sql()` gives a condition on the table `items` and its parameters: no text of a request is ever part of the SQL.
Left out: reading a filter from JSON (`serving.collection.catalogue.filter_parser`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from serving.collection.catalogue.items import Stored
from serving.collection.catalogue.metadata import BUILT_IN, Scalar, scalars_of, stored_scalar

Parameter = str | int | float | bytes | None


class Sql(NamedTuple):
    """A condition with a question mark for each parameter."""

    text: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class OneOf:
    """The value is one of these; numbers equal numbers only, text text, booleans booleans, null null."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return any(_equal(value, wanted) for value in values_of(item, self.key) for wanted in self.values)

    def to_sql(self) -> Sql:
        """The same for SQLite."""
        if not self.values:
            return Sql("0", ())
        if self.key not in BUILT_IN:
            values = tuple(stored_scalar(value) for value in self.values)
            return _some_term(self.key, f"value IN ({_marks(values)})", values)
        values = tuple(value for value in self.values if value is not None)
        present = Sql(f"({self.key} IS NOT NULL AND {self.key} IN ({_marks(values)}))", values)
        return present if len(values) == len(self.values) else Sql(f"({self.key} IS NULL OR {present.text})", values)


class Bound(NamedTuple):
    """An end of a range, itself in the range or not."""

    value: str | int | float
    inclusive: bool


@dataclass(frozen=True)
class Range:
    """The value lies between two ends, one of which may be open; both are numbers, or both text."""

    key: str
    low: Bound | None = None
    high: Bound | None = None

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant: one value that fulfils both ends."""
        return any(self._holds(value) for value in values_of(item, self.key))

    def to_sql(self) -> Sql:
        """The same for SQLite, which puts all numbers before all text and all text before all blobs."""
        column = self.key if self.key in BUILT_IN else "value"
        tests, parameters = [], []
        for bound, sign in ((self.low, ">"), (self.high, "<")):
            if bound is not None:
                tests.append(f"{column} {sign}{'=' if bound.inclusive else ''} ?")
                parameters.append(bound.value)
        if self.key in BUILT_IN:
            return Sql(f"({column} IS NOT NULL AND {' AND '.join(tests)})", tuple(parameters))
        of_type = "value >= '' AND value < x''" if isinstance(self._end.value, str) else "value < ''"
        return _some_term(self.key, " AND ".join([*tests, of_type]), parameters)

    @property
    def _end(self) -> Bound:
        bound = self.low or self.high
        assert bound is not None, "a range has an end"
        return bound

    def _holds(self, value: Scalar) -> bool:
        if _type(value) != _type(self._end.value):
            return False
        for bound, sign in ((self.low, 1), (self.high, -1)):
            if bound is not None:
                order = sign * ((value > bound.value) - (value < bound.value))  # type: ignore[operator]
                if order < 0 or (order == 0 and not bound.inclusive):
                    return False
        return True


@dataclass(frozen=True)
class Exists:
    """The key has a value (null is one; an empty list or object is none), or has not."""

    key: str
    wanted: bool = True

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        if self.key in BUILT_IN:
            return (values_of(item, self.key) != [None]) == self.wanted
        keys = {key for key, _ in scalars_of(item.metadata)}
        return any(key == self.key or key.startswith(f"{self.key}.") for key in keys) == self.wanted

    def to_sql(self) -> Sql:
        """The same for SQLite."""
        if self.key in BUILT_IN:
            return Sql(f"{self.key} IS {'NOT ' if self.wanted else ''}NULL", ())
        below = (f"{self.key}.", f"{self.key}/")  # "/" follows ".": between them lies whatever begins with the first
        terms = "SELECT item FROM terms WHERE key = ? UNION ALL SELECT item FROM terms WHERE key >= ? AND key < ?"
        return Sql(f"row {'' if self.wanted else 'NOT '}IN ({terms})", (self.key, *below))


@dataclass(frozen=True)
class All:
    """Every part holds; without parts, always."""

    parts: tuple["Filter", ...] = ()

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return all(part.matches(item) for part in self.parts)

    def to_sql(self) -> Sql:
        """The same for SQLite."""
        return _joined(self.parts, " AND ", empty="1")


@dataclass(frozen=True)
class Either:
    """At least one part holds; without parts, never."""

    parts: tuple["Filter", ...]

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return any(part.matches(item) for part in self.parts)

    def to_sql(self) -> Sql:
        """The same for SQLite."""
        return _joined(self.parts, " OR ", empty="0")


@dataclass(frozen=True)
class Negation:
    """The part does not hold."""

    part: "Filter"

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return not self.part.matches(item)

    def to_sql(self) -> Sql:
        """The same for SQLite; no condition here is ever NULL, so NOT is its opposite."""
        text, parameters = self.part.to_sql()
        return Sql(f"NOT {text}", parameters)


Filter = OneOf | Range | Exists | All | Either | Negation
EVERYTHING = All()


def keys_of(condition: Filter) -> Iterator[str]:
    """The keys that a filter looks at."""
    if isinstance(condition, All | Either):
        for part in condition.parts:
            yield from keys_of(part)
    elif isinstance(condition, Negation):
        yield from keys_of(condition.part)
    else:
        yield condition.key


def values_of(item: Stored, key: str) -> list[Scalar]:
    """What an item has at a key, a built-in one or one of its metadata."""
    columns = {"bytes": item.source.size, "media_type": item.source.media_type}
    if key in BUILT_IN:
        return [columns[key] if key in columns else getattr(item, key)]
    return [value for name, value in scalars_of(item.metadata) if name == key]


def _equal(one: Scalar, other: Scalar) -> bool:
    return _type(one) == _type(other) and one == other


def _type(value: Scalar) -> type:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value)
    return float


def _some_term(key: str, test: str, parameters: Iterable[Parameter]) -> Sql:
    return Sql(f"row IN (SELECT item FROM terms WHERE key = ? AND {test})", (key, *parameters))


def _joined(parts: tuple[Filter, ...], word: str, *, empty: str) -> Sql:
    conditions = [part.to_sql() for part in parts]
    text = word.join(condition.text for condition in conditions) or empty
    return Sql(f"({text})", tuple(value for condition in conditions for value in condition.parameters))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
