"""Filters as SQL: a condition on the table `items` and its parameters, so no text of a request is ever part of the SQL.

No condition is ever NULL, so NOT gives its opposite. SQLite puts all numbers before all text, and all text before all
blobs, which keeps a range of numbers apart from one of text.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from serving.collection.catalogue.filters import All, Either, Exists, Filter, Negation, OneOf, Range
from serving.collection.catalogue.metadata import BUILT_IN, stored_scalar

Parameter = str | int | float | bytes | None


class Sql(NamedTuple):
    """A condition with a question mark for each parameter."""

    text: str
    parameters: tuple[Parameter, ...]


def compile_filter(condition: Filter) -> Sql:
    """The condition that holds for the items that the filter matches."""
    match condition:
        case OneOf():
            return _one_of(condition)
        case Range():
            return _range(condition)
        case Exists():
            return _exists(condition)
        case All(parts):
            return _joined(parts, " AND ", empty="1")
        case Either(parts):
            return _joined(parts, " OR ", empty="0")
        case Negation(part):
            text, parameters = compile_filter(part)
            return Sql(f"NOT {text}", parameters)


def _one_of(condition: OneOf) -> Sql:
    key = condition.key
    if not condition.values:
        return Sql("0", ())
    if key not in BUILT_IN:
        stored = tuple(stored_scalar(value) for value in condition.values)
        return _some_term(key, f"value IN ({_marks(stored)})", stored)
    values = tuple(value for value in condition.values if value is not None)
    present = Sql(f"({key} IS NOT NULL AND {key} IN ({_marks(values)}))", values)
    return present if len(values) == len(condition.values) else Sql(f"({key} IS NULL OR {present.text})", values)


def _range(condition: Range) -> Sql:
    column = condition.key if condition.key in BUILT_IN else "value"
    tests, parameters = [], []
    for bound, sign in ((condition.low, ">"), (condition.high, "<")):
        if bound is not None:
            tests.append(f"{column} {sign}{'=' if bound.inclusive else ''} ?")
            parameters.append(bound.value)
    if condition.key in BUILT_IN:
        return Sql(f"({column} IS NOT NULL AND {' AND '.join(tests)})", tuple(parameters))
    of_type = "value >= '' AND value < x''" if isinstance(parameters[0], str) else "value < ''"
    return _some_term(condition.key, " AND ".join([*tests, of_type]), parameters)


def _exists(condition: Exists) -> Sql:
    key = condition.key
    if key in BUILT_IN:
        return Sql(f"{key} IS {'NOT ' if condition.wanted else ''}NULL", ())
    below = (f"{key}.", f"{key}/")  # "/" follows ".": between them lies whatever begins with the first
    terms = "SELECT item FROM terms WHERE key = ? UNION ALL SELECT item FROM terms WHERE key >= ? AND key < ?"
    return Sql(f"row {'' if condition.wanted else 'NOT '}IN ({terms})", (key, *below))


def _some_term(key: str, test: str, parameters: Iterable[Parameter]) -> Sql:
    return Sql(f"row IN (SELECT item FROM terms WHERE key = ? AND {test})", (key, *parameters))


def _joined(parts: Sequence[Filter], word: str, *, empty: str) -> Sql:
    conditions = [compile_filter(part) for part in parts]
    text = word.join(condition.text for condition in conditions) or empty
    return Sql(f"({text})", tuple(value for condition in conditions for value in condition.parameters))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
