import random
from pathlib import Path
from typing import Any

import pytest

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.filters import keys_of
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source, Stored
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.filter_sql import compile_filter
from serving.collection.errors import FilterError
from tests.serving.collection.examples import RELEASE, item, unit_vectors

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


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalogue, tuple[Stored, ...]]:
    source = random.Random(7)
    catalogue = open_catalogue(tmp_path_factory.mktemp("filters"), create=True)
    made = []
    for number in range(150):
        picture = Source.kept(b"x" * source.randrange(1, 5), source.choice(["image/png", "image/jpeg", None]))
        made.append(Item(f"i{number}", picture, source.choice(["cat", "dog", None]), some_metadata(source)))
    catalogue.upsert(made, unit_vectors(150, 8), RELEASE)
    return catalogue, catalogue.items.page(limit=1000).items


@pytest.mark.parametrize("seed", range(4))
def test_sqlite_and_plain_python_agree(filled: tuple[Catalogue, tuple[Stored, ...]], seed: int) -> None:
    catalogue, stored = filled
    source = random.Random(seed)
    matched = 0
    for _ in range(150):
        written = some_filter(source)
        condition = parse_filter(written)
        expected = [item.row for item in stored if condition.matches(item)]
        assert catalogue.items.rows_matching(condition).tolist() == expected, written
        assert catalogue.items.count(condition) == len(expected), written
        matched += 0 < len(expected) < len(stored)
    assert matched > 50


def names(catalogue: Catalogue, written: dict[str, Any]) -> list[str]:
    return [item.id for item in catalogue.items.page(parse_filter(written)).items]


def test_what_the_language_says(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    made = [
        item("red", label="cat", colour="red", price=1, tags=["a", "b"], camera={"make": "X"}),
        item("blue", label="dog", colour="blue", price=5, tags=[], sold=False),
        item("plain", price=[0, 9], sold=None),
    ]
    catalogue.upsert(made, unit_vectors(3), RELEASE)
    assert names(catalogue, {}) == ["red", "blue", "plain"]
    assert names(catalogue, {"label": "cat"}) == ["red"]
    assert names(catalogue, {"label": None}) == ["plain"]
    assert names(catalogue, {"not": {"label": "cat"}}) == ["blue", "plain"]
    assert names(catalogue, {"colour": {"in": ["red", "green"]}}) == ["red"]
    assert names(catalogue, {"price": {"gte": 1, "lt": 5}}) == ["red"]  # no element of [0, 9] is between
    assert names(catalogue, {"price": {"gte": 9}}) == ["plain"]
    assert names(catalogue, {"tags": "b"}) == ["red"]
    assert names(catalogue, {"camera": {"exists": True}}) == ["red"]
    assert names(catalogue, {"tags": {"exists": False}}) == ["blue", "plain"]
    assert names(catalogue, {"sold": {"exists": True}}) == ["blue", "plain"]
    assert names(catalogue, {"sold": None}) == ["plain"]
    assert names(catalogue, {"sold": 0}) == []
    assert names(catalogue, {"colour": "red", "price": 5}) == []
    assert names(catalogue, {"or": [{"colour": "red"}, {"price": 5}]}) == ["red", "blue"]
    assert names(catalogue, {"and": [{"price": {"gt": 0}}, {"not": {"id": "red"}}]}) == ["blue", "plain"]


def test_text_of_a_filter_is_never_sql() -> None:
    hostile = "x') OR 1=1; DROP TABLE items; --"
    condition = parse_filter({hostile: hostile, "or": [{"label": hostile}, {hostile: {"exists": True}}]})
    text, parameters = compile_filter(condition)
    assert "DROP" not in text
    assert parameters.count(hostile) == 4
    assert list(keys_of(condition)) == [hostile, "label", hostile]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], r"filter is \[\]; it must be an object"),
        ("cat", "filter is 'cat'; it must be an object"),
        ({"": 1}, "a key of the filter is empty"),
        ({"colour": {"is": "red"}}, "filter key 'colour' has 'is'; accepted: in, exists, gt, gte, lt, lte"),
        ({"colour": {}}, "filter key 'colour' has no test; accepted: in"),
        ({"colour": ["red"]}, r"filter key 'colour' is \['red'\]; a text, number, boolean or null is accepted"),
        ({"colour": {"in": "red"}}, "filter key 'colour': in is 'red'; it must be a list"),
        ({"colour": {"in": [{}]}}, "filter key 'colour' is {}"),
        ({"price": {"gte": True}}, "filter key 'price': gte is True; it must be a number or text"),
        ({"price": {"gt": 1, "gte": 2}}, "filter key 'price' has both gt and gte"),
        ({"price": {"gt": 1, "lt": "b"}}, "both must be numbers, or both text"),
        ({"price": float("inf")}, "filter key 'price' is inf"),
        ({"price": 2**64}, "integers must fit 64 bits"),
        ({"camera": {"exists": 1}}, "filter key 'camera': exists is 1; it must be true or false"),
        ({"label": 3}, "filter key 'label' is 3; it must be text"),
        ({"bytes": {"gt": "3"}}, "filter key 'bytes' is '3'; it must be a number"),
        ({"created": True}, "filter key 'created' is True; it must be a number"),
        ({"and": []}, r"filter key 'and' is \[\]; it must be a list of at least one filter"),
        ({"or": {"a": 1}}, "filter key 'or' is {'a': 1}; it must be a list"),
        ({"or": [{}]}, "an element of filter key 'or' is {}; it must be an object"),
        ({"not": {}}, "filter key 'not' is {}"),
        ({"a": {"in": list(range(10_001))}}, "more than 10000 values, at key 'a'"),
        ({"or": [{"a": 1}] * 257}, "more than 256 conditions, at key 'a'"),
    ],
)
def test_a_filter_that_means_nothing_is_explained(written: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        parse_filter(written)


def test_a_filter_as_deep_and_as_long_as_allowed_can_be_asked(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path, create=True)
    deep: dict[str, Any] = {"a": {"in": list(range(9_700))}}
    for _ in range(16):
        deep = {"not": deep}
    assert catalogue.items.count(parse_filter(deep)) == 0
    assert catalogue.items.count(parse_filter({"or": [{"a": number} for number in range(256)]})) == 0
    with pytest.raises(FilterError, match="nested more than 16 deep"):
        parse_filter({"not": deep})
