"""What every catalogue must do when labels and metadata are changed: only they change, and all who read see it."""

import random
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.metadata import merged
from serving.collection.catalogue.writes import Change, Delete, Update, Updated, Upsert
from serving.collection.errors import CatalogueFull, ItemError
from tests.serving.collection.catalogue.openers import Opener
from tests.serving.collection.catalogue.random_filters import some_filter, some_metadata
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE, fill, item, items, unit_vectors


def metadata_of(catalogue: Catalogue, name: str) -> dict[str, Any]:
    stored = catalogue.items.get(name)
    assert stored is not None
    return stored.metadata


def test_an_update_changes_label_and_metadata_and_nothing_else(both: Catalogue) -> None:
    both.upsert([item("a", label="cat", colour="red", size=1), item("b")], unit_vectors(2), RELEASE)
    before, rest = both.items.get("a", content=True), both.items.get("b")
    waiting = both.spaces.pending(OTHER_RELEASE, limit=9)
    assert both.update([Change("a", "dog", {"colour": None, "year": 2024})]) == Updated(2, ("updated",))
    after = both.items.get("a", content=True)
    assert before is not None
    assert after is not None
    assert (after.label, after.metadata, after.seq) == ("dog", {"size": 1, "year": 2024}, 2)
    assert (after.row, after.source, after.created) == (before.row, before.source, before.created)
    assert after.updated >= before.updated
    assert both.items.get("b") == rest
    assert both.vectors.sequence(RELEASE) == 1
    assert both.vectors.changes_since(RELEASE, 1).rows.size == 0
    np.testing.assert_array_equal(both.vectors.of(["a"], RELEASE)["a"], unit_vectors(2)[0])
    assert both.vectors.digests_of(["a"], RELEASE) == {"a": before.source.sha256}
    assert both.spaces.pending(OTHER_RELEASE, limit=9) == waiting
    assert (both.last_write(), both.items.rows_since(1).tolist()) == (2, [1])


def test_what_is_unset_stays_and_what_is_the_same_is_unchanged(catalogue: Catalogue) -> None:
    catalogue.upsert([item("a", label="cat", colour="red")], unit_vectors(1), RELEASE)
    before = catalogue.items.get("a")
    same = [
        Change("a", "cat"),
        Change("a", metadata={}),
        Change("a", metadata={"colour": "red", "size": None}),
        Change("a", "cat", {"colour": "red"}, replace=True),
    ]
    for change in same:
        assert catalogue.update([change]).outcomes == ("unchanged",)
    assert catalogue.items.get("a") == before
    assert catalogue.update([Change("a", None)]).outcomes == ("updated",)
    assert metadata_of(catalogue, "a") == {"colour": "red"}
    assert catalogue.update([Change("a", metadata={"size": None}, replace=True)]).outcomes == ("updated",)
    assert metadata_of(catalogue, "a") == {"size": None}  # a value, where nothing is merged
    assert catalogue.items.count(parse_filter({"label": None, "size": None})) == 1


MERGES: list[tuple[Any, Any, Any]] = [  # of RFC 7396, appendix A, those whose target is an object
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), MERGES)
def test_metadata_is_a_merge_patch(catalogue: Catalogue, target: Any, patch: Any, result: Any) -> None:
    catalogue.upsert([Item("x", Source.kept(b"x"), None, target)], unit_vectors(1), RELEASE)
    catalogue.update([Change("x", metadata=patch)])
    assert metadata_of(catalogue, "x") == result


def test_an_item_that_is_not_there_or_would_be_too_large_is_left_out_alone(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    catalogue.update([Change("n0", metadata={"text": "x" * 60_000})])
    large = {"more": "y" * 10_000}
    changes = [Change("none", "cat"), Change("n0", "cat", large), Change("n1", "cat", large)]
    missing, refused, updated = catalogue.update(changes).outcomes
    assert (missing, updated) == ("missing", "updated")
    assert isinstance(refused, ItemError)
    assert "item 'n0' would not be as an item must be: metadata takes 70" in str(refused)
    assert [one.label for one in catalogue.items.page().items] == [None, "cat"]
    assert catalogue.items.get("none") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "an update needs at least one item"),
        ([Change("n0", "cat"), Change("n0", "dog")], "id 'n0' occurs twice in one update"),
        ([Change("n0")], "the update of item 'n0' has neither a label nor metadata"),
        ([Change("n0", "cat"), Change("", "cat")], "an id is empty"),
        ([Change("n0", "")], "the label of item 'n0' is empty"),
        ([Change("n0", metadata={"label": None})], "item 'n0': metadata key 'label' is reserved"),
        ([Change("n0", metadata={"x": float("nan")})], "item 'n0': metadata.x is nan"),
    ],
)
def test_what_can_be_made_of_no_item_is_refused_as_a_whole(
    catalogue: Catalogue, changes: list[Change], said: str
) -> None:
    fill(catalogue, unit_vectors(1))
    with pytest.raises(ItemError, match=said):
        catalogue.update(changes)
    assert (catalogue.last_write(), metadata_of(catalogue, "n0")) == (1, {})


def test_updates_have_their_place_among_the_writes_of_a_transaction(catalogue: Catalogue, opener: Opener) -> None:
    written = catalogue.write_many(
        [
            Update([Change("a", "early")]),
            Upsert(items(["a"]), unit_vectors(1), RELEASE),
            Update([Change("a")]),
            Update([Change("a", "cat")]),
            Update([Change("a", metadata={"x": 1})]),
            Delete(["a"]),
            Update([Change("a", "late")]),
        ]
    )
    assert [one.outcomes for one in written if isinstance(one, Updated)] == [
        ("missing",),
        ("updated",),
        ("updated",),
        ("missing",),
    ]
    assert isinstance(written[2], ItemError)
    assert [one.seq for one in written if isinstance(one, Updated)] == [1, 3, 4, 6]
    assert opener.open(catalogue.folder).items.count() == 0


def test_every_opening_sees_at_once_what_another_updated(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(2))
    other = opener.open(catalogue.folder)
    cats = parse_filter({"label": "cat"})
    assert (other.items.count(cats), other.stats().labels) == (0, {None: 2})
    seq = catalogue.update([Change("n1", "cat")]).seq
    assert (other.items.count(cats), other.stats().labels) == (1, {None: 1, "cat": 1})
    assert other.last_write() == seq == 2
    assert other.items.rows_since(1).tolist() == [2]


def test_a_full_disk_refuses_the_whole_update(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(40))
    changes = [Change(f"n{n}", "cat", {"text": "x" * 30_000}) for n in range(40)]
    with opener.full(catalogue):
        with pytest.raises(CatalogueFull, match="is the disk full"):
            catalogue.update(changes)
        assert catalogue.items.count(parse_filter({"label": "cat"})) == 0
    assert set(catalogue.update(changes).outcomes) == {"updated"}


@pytest.mark.parametrize("seed", range(3))
def test_after_random_updates_filters_mean_what_matches_says(catalogue: Catalogue, seed: int) -> None:
    source = random.Random(seed)
    known = {f"i{number}": some_metadata(source) for number in range(60)}
    catalogue.upsert([item(name, **metadata) for name, metadata in known.items()], unit_vectors(60), RELEASE)
    for _ in range(60):
        chosen = source.sample([*known], 4)
        replace = source.random() < 0.3
        patches = {name: some_metadata(source) for name in chosen}
        catalogue.update([Change(name, UNSET, patch, replace) for name, patch in patches.items()])
        known |= {name: patch if replace else merged(known[name], patch) for name, patch in patches.items()}
        stored = catalogue.items.page(limit=100).items
        assert {one.id: one.metadata for one in stored} == known
        written = some_filter(source)
        condition = parse_filter(written)
        expected = [one.row for one in stored if condition.matches(one)]
        assert catalogue.items.rows_matching(condition).tolist() == expected, written
