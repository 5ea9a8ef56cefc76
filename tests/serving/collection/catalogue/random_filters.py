"""Random metadata, and random filters that mean some of it."""

import random
from typing import Any

VALUES: list[Any] = [
    *(0, 1, -1, 5, 1.0, 2.5, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 1e300, 5e-324),
    *("", "a", "b", "1", "true", "null", "é", "😀", "\uffff", "a\0b", "x' OR '1'='1", "%", "a.b"),
    *(True, False, None),
]
KEYS = ["colour", "price", "camera", "camera.make", "camera.makes", "tags", "Colour", "camera/x"]
COLUMNS: dict[str, list[Any]] = {
    "id": ["i3", "i7", "nothing"],
    "label": ["cat", "dog", "", None],
    "media_type": ["image/png", "image/jpeg", None],
    "bytes": [2, 3, 2.5, 10**6, None],
    "created": [0, 10**15],
    "updated": [0, 1.5, 10**15],
}
RANGES = [("gt",), ("gte",), ("lt",), ("lte",), ("gt", "lt"), ("gte", "lte"), ("gte", "lt")]


def some_metadata(source: random.Random) -> dict[str, Any]:
    def value(depth: int) -> Any:
        kind = source.random()
        if depth and kind < 0.2:
            return [value(depth - 1) for _ in range(source.randrange(4))]
        if depth and kind < 0.35:
            return {name: value(depth - 1) for name in source.sample(["make", "makes", "x"], source.randrange(3))}
        return source.choice(VALUES)

    names = ["colour", "price", "camera", "tags", "Colour", "camera/x", "camera.make"]
    return {name: value(3) for name in source.sample(names, source.randrange(len(names)))}


def some_filter(source: random.Random, depth: int = 3) -> dict[str, Any]:
    connective = source.random()
    if depth and connective < 0.15:
        return {"not": some_filter(source, depth - 1)}
    if depth and connective < 0.4:
        word = source.choice(["and", "or"])
        return {word: [some_filter(source, depth - 1) for _ in range(source.randrange(1, 4))]}
    keys = source.sample([*KEYS, *COLUMNS], source.choice([1, 1, 1, 2]))
    return {key: some_tests(source, COLUMNS.get(key, VALUES)) for key in keys}


def some_tests(source: random.Random, values: list[Any]) -> Any:
    kind = source.random()
    if kind < 0.3:
        return source.choice(values)
    if kind < 0.5:
        return {"in": [source.choice(values) for _ in range(source.randrange(4))]}
    if kind < 0.6:
        return {"exists": source.random() < 0.5}
    first = source.choice([value for value in values if value is not None and not isinstance(value, bool)])
    alike = [value for value in values if isinstance(value, str) == isinstance(first, str)]
    alike = [value for value in alike if value is not None and not isinstance(value, bool)]
    ends = {name: source.choice(alike) for name in source.choice(RANGES)}
    return {**ends, "exists": True} if kind < 0.65 else ends
