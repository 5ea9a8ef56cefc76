"""What every catalogue must do with items: pages, filters, and finding them again."""

import hashlib
import random
from typing import Any

import pytest

from core.images import seen
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.filters import EVERYTHING
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source, Stored
from serving.collection.errors import (
    FilterError,
)
from tests.serving.collection.catalogue.random_filters import some_filter, some_metadata
from tests.serving.collection.examples import RELEASE, fill, item, items, unit_vectors


def test_pages_list_every_item_that_stays_once_whatever_is_written_meanwhile(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(20))
    seen: list[str] = []
    cursor = None
    for turn in range(100):
        page = catalogue.items.page(limit=3, cursor=cursor)
        seen += [stored.id for stored in page.items]
        cursor = page.cursor
        if cursor is None:
            break
        catalogue.delete([f"n{turn}"])  # one that was seen, so that what follows moves up
        catalogue.upsert([item(f"n{turn + 10}", label="changed")], unit_vectors(1, seed=turn), RELEASE)
    assert len(seen) == len(set(seen))
    assert set(seen) >= {f"n{number}" for number in range(10, 20)}
    assert catalogue.items.page(limit=1000).cursor is None


def test_pages_keep_to_a_filter_and_end_exactly(catalogue: Catalogue) -> None:
    catalogue.upsert([item(f"n{n}", even=n % 2 == 0) for n in range(8)], unit_vectors(8), RELEASE)
    even = parse_filter({"even": True})
    first = catalogue.items.page(even, limit=2)
    second = catalogue.items.page(even, limit=2, cursor=first.cursor)
    assert [stored.id for stored in (*first.items, *second.items)] == ["n0", "n2", "n4", "n6"]
    assert second.cursor is None
    for cursor in ("", "-1", "x", "1; --", "²", "9" * 30):
        with pytest.raises(FilterError, match="it must be one that an earlier page gave"):
            catalogue.items.page(cursor=cursor)
    for limit in (0, 10_001):
        with pytest.raises(FilterError, match=f"limit is {limit}; it must be from 1 to 10000"):
            catalogue.items.page(limit=limit)


def test_rows_of_deleted_items_are_never_used_again(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(3))
    catalogue.delete(["n2", "n1"])
    catalogue.upsert(items(["n2"]), unit_vectors(1), RELEASE)
    assert catalogue.vectors.census(RELEASE).rows.tolist() == [1, 4]


def test_items_are_found_by_id_by_row_and_by_the_write_that_changed_them(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(4))
    catalogue.upsert([Item("n1", Source.at("/n1", b"moved"))], unit_vectors(1), RELEASE)
    found = catalogue.items.get_many(["n2", "nothing", "n1"])
    assert {name: one.row for name, one in found.items()} == {"n1": 2, "n2": 3}
    assert catalogue.items.get_many([]) == {}
    assert catalogue.items.at([]) == {}
    assert {row: one.id for row, one in catalogue.items.at([1, 2, 99]).items()} == {1: "n0", 2: "n1"}
    assert catalogue.items.rows_since(1).tolist() == [2]
    assert catalogue.items.rows_since(0).tolist() == catalogue.items.rows_matching(EVERYTHING).tolist() == [1, 2, 3, 4]
    rows, shown = catalogue.items.contents()
    digests = [hashlib.sha256(content).digest() for content in (b"n0", b"moved", b"n2", b"n3")]
    assert (rows.tolist(), shown.tolist()) == ([1, 2, 3, 4], seen.contents(digests).tolist())
    assert catalogue.items.kept_source(1) == (digests[0], b"n0")
    assert catalogue.items.kept_source(2) is catalogue.items.kept_source(99) is None


def test_filters_follow_a_replaced_item(catalogue: Catalogue) -> None:
    catalogue.upsert([item("a", colour="red", tags=["x", "y"])], unit_vectors(1), RELEASE)
    catalogue.upsert([item("a", colour="blue")], unit_vectors(1), RELEASE)
    assert catalogue.items.count(parse_filter({"colour": "red"})) == 0
    assert catalogue.items.count(parse_filter({"tags": {"exists": True}})) == 0
    assert catalogue.items.count(parse_filter({"colour": "blue"})) == 1


@pytest.fixture
def filled(catalogue: Catalogue) -> tuple[Catalogue, tuple[Stored, ...]]:
    source = random.Random(7)
    made = []
    for number in range(150):
        picture = Source.kept(b"x" * source.randrange(1, 5), source.choice(["image/png", "image/jpeg", None]))
        made.append(Item(f"i{number}", picture, source.choice(["cat", "dog", None]), some_metadata(source)))
    catalogue.upsert(made, unit_vectors(150, 8), RELEASE)
    return catalogue, catalogue.items.page(limit=1000).items


@pytest.mark.parametrize("seed", range(4))
def test_a_filter_means_what_matches_says(filled: tuple[Catalogue, tuple[Stored, ...]], seed: int) -> None:
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


def test_what_the_language_says(catalogue: Catalogue) -> None:
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


def test_a_filter_as_deep_and_as_long_as_allowed_can_be_asked(catalogue: Catalogue) -> None:
    deep: dict[str, Any] = {"a": {"in": list(range(9_700))}}
    for _ in range(16):
        deep = {"not": deep}
    assert catalogue.items.count(parse_filter(deep)) == 0
    assert catalogue.items.count(parse_filter({"or": [{"a": number} for number in range(256)]})) == 0
    with pytest.raises(FilterError, match="nested more than 16 deep"):
        parse_filter({"not": deep})
