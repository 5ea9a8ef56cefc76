"""Filters: which items are meant, as small values. Each can say whether it matches an item.

A condition looks at one key, of the metadata or one of the built-in columns; where the metadata has a list, any of
its elements may fulfil it. A negation holds wherever its part does not, also where the key is absent.
Each catalogue compiles filters to its own queries, whose answers must be those of `matches`. JSON is read into filters
in `serving.collection.catalogue.filter_parser`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from serving.collection.catalogue.items import Stored
from serving.collection.catalogue.metadata import BUILT_IN, Scalar, scalars_of


@dataclass(frozen=True)
class OneOf:
    """The value is one of these; numbers equal numbers only, text text, booleans booleans, null null."""

    key: str
    values: tuple[Scalar, ...]

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return any(_equal(value, wanted) for value in values_of(item, self.key) for wanted in self.values)


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


@dataclass(frozen=True)
class All:
    """Every part holds; without parts, always."""

    parts: tuple["Filter", ...] = ()

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return all(part.matches(item) for part in self.parts)


@dataclass(frozen=True)
class Either:
    """At least one part holds; without parts, never."""

    parts: tuple["Filter", ...]

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return any(part.matches(item) for part in self.parts)


@dataclass(frozen=True)
class Negation:
    """The part does not hold."""

    part: "Filter"

    def matches(self, item: Stored) -> bool:
        """Whether the item is meant."""
        return not self.part.matches(item)


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
