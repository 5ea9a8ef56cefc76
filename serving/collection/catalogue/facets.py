"""How often the values of a key occur, as values; and which keys can be counted."""

from dataclasses import dataclass

from serving.collection.catalogue.metadata import BUILT_IN, MAX_KEY_BYTES, text_problem
from serving.collection.errors import FilterError

LABEL = "label"


@dataclass(frozen=True)
class Facet:
    """The values of one key: the most frequent ones with the number of items that have each, most items first.

    Of as many items numbers come first, then texts, then booleans, each ascending. `distinct` counts all different
    values, and `missing` the items without any. Text, numbers and booleans are counted; null is no value here. An item
    with a list counts once for each different element.
    """

    values: tuple[tuple[str | int | float | bool, int], ...]
    distinct: int
    missing: int


def check_key(key: str) -> None:
    """Raise `FilterError` unless values of this key can be counted: of the label, or of a key of the metadata."""
    if problem := text_problem(key, 9 * MAX_KEY_BYTES):
        raise FilterError(f"one of keys {problem}")
    if key in BUILT_IN and key != LABEL:
        raise FilterError(f"keys has {key!r}; values are counted of the label and of keys of the metadata")
