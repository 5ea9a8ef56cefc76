"""What every catalogue must say of how often values occur."""

import random
from collections import Counter

import pytest

from serving.collection.catalogue.facets import Facet
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.filters import EVERYTHING, values_of
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source, Stored
from serving.collection.catalogue.writes import Change
from serving.collection.errors import FilterError
from tests.serving.collection.catalogue.random_filters import KEYS, some_filter, some_metadata
from tests.serving.collection.examples import RELEASE, fill, item, unit_vectors


def test_values_are_counted_the_most_frequent_first(catalogue: Catalogue) -> None:
    made = [
        item("a", label="cat", year=2024, tags=["x", "y", "x"], camera={"make": "X"}, sold=True),
        item("b", label="dog", year=2024, tags=["y"], sold=False),
        item("c", label="cat", year="2024", tags=[], sold=None),
        item("d", label="ant", year=3.5, sold=True),
        item("e", sold=1),
    ]
    catalogue.upsert(made, unit_vectors(5), RELEASE)
    assert catalogue.items.facets(["label", "year", "tags", "camera.make", "camera", "sold"]) == {
        "label": Facet((("cat", 2), ("ant", 1), ("dog", 1)), 3, 1),
        "year": Facet(((2024, 2), (3.5, 1), ("2024", 1)), 3, 1),
        "tags": Facet((("y", 2), ("x", 1)), 2, 3),
        "camera.make": Facet((("X", 1),), 1, 4),
        "camera": Facet((), 0, 5),
        "sold": Facet(((True, 2), (1, 1), (False, 1)), 3, 1),
    }
    found = catalogue.items.facets(["sold", "label"], parse_filter({"year": 2024}), limit=1)
    assert found == {"sold": Facet(((False, 1),), 2, 0), "label": Facet((("cat", 1),), 2, 0)}
    assert [type(value) for value, _ in catalogue.items.facets(["sold"])["sold"].values] == [bool, int, bool]
    assert catalogue.items.facets(["label"], parse_filter({"label": "none"})) == {"label": Facet((), 0, 0)}
    assert catalogue.items.facets([]) == {}


def test_values_follow_updates_and_deletions(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(3))
    assert catalogue.items.facets(["label"]) == {"label": Facet((), 0, 3)}
    catalogue.update([Change("n0", "cat", {"size": 1}), Change("n1", "cat", {"size": 2})])
    catalogue.delete(["n0"])
    catalogue.update([Change("n1", metadata={"size": None, "colour": "red"})])
    assert catalogue.items.facets(["label", "size", "colour"]) == {
        "label": Facet((("cat", 1),), 1, 1),
        "size": Facet((), 0, 2),
        "colour": Facet((("red", 1),), 1, 1),
    }


@pytest.mark.parametrize("key", ["id", "bytes", "created", "", "a\nb"])
def test_a_key_that_has_no_counts_is_refused(catalogue: Catalogue, key: str) -> None:
    with pytest.raises(FilterError, match="keys"):
        catalogue.items.facets(["label", key])


def counted(stored: list[Stored], key: str, limit: int) -> Facet:
    """By hand; numbers before texts before booleans where as many items have them."""
    own = [{(isinstance(v, bool), v) for v in values_of(one, key) if v is not None} for one in stored]
    counts = Counter(value for values in own for value in values)
    order = sorted(counts, key=lambda value: (-counts[value], value[0], isinstance(value[1], str), value[1]))
    return Facet(
        tuple((value[1], counts[value]) for value in order[:limit]), len(counts), sum(not values for values in own)
    )


def test_counts_are_those_of_a_loop_over_all_items(catalogue: Catalogue) -> None:
    source = random.Random(3)
    made = [
        Item(f"i{number}", Source.kept(b"x"), source.choice(["cat", "dog", None]), some_metadata(source))
        for number in range(150)
    ]
    catalogue.upsert(made, unit_vectors(150, 8), RELEASE)
    stored = catalogue.items.page(limit=1000).items
    for turn in range(60):
        condition = parse_filter(some_filter(source)) if turn else EVERYTHING
        meant = [one for one in stored if condition.matches(one)]
        limit = source.randrange(1, 30)
        expected = {key: counted(meant, key, limit) for key in ["label", *KEYS]}
        assert catalogue.items.facets(["label", *KEYS], condition, limit=limit) == expected
