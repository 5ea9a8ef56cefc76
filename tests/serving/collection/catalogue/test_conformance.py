"""What every catalogue must do: writing, its numbers, moments, and errors. The parts are in `test_conformance_*.py`."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.collection.catalogue import interface
from serving.collection.catalogue.bases import BaseRecord
from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.items import Item, Source
from serving.collection.catalogue.writes import Delete, Deleted, Upsert, Upserted
from serving.collection.errors import (
    CatalogueError,
    FilterError,
    ItemError,
)
from tests.serving.collection.catalogue.openers import Opener
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    RELEASE,
    fill,
    item,
    items,
    unit_vectors,
)


def test_a_new_catalogue_is_opened_again(opener: Opener, tmp_path: Path) -> None:
    names = fill(opener.open(tmp_path / "new", create=True), unit_vectors(2))
    assert [stored.id for stored in opener.open(tmp_path / "new").items.page().items] == names


def test_many_may_create_a_catalogue_at_once_and_write_to_it(opener: Opener, tmp_path: Path) -> None:
    def create(number: int) -> int:
        return len(fill(opener.open(tmp_path, create=True), unit_vectors(3), prefix=f"{number}-"))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(create, range(6))) == [3] * 6
    assert opener.open(tmp_path).items.count() == 18


def test_a_folder_without_a_catalogue_is_refused(opener: Opener, tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="no collection"):
        opener.open(tmp_path)


def ids(catalogue: Catalogue) -> list[str]:
    return [stored.id for stored in catalogue.items.page(limit=1000).items]


def test_what_is_stored_comes_back(catalogue: Catalogue, opener: Opener) -> None:
    vectors = unit_vectors(2)
    elsewhere = Item("b", Source.at("/images/b.jpg", b"picture", "image/jpeg"), "cat", {"tags": ["x", None], "é": 1.5})
    written = catalogue.upsert([item("a", b"bytes of a"), elsewhere], vectors, RELEASE)
    assert written == Upserted(1, ("created", "created"))
    again = opener.open(catalogue.folder)
    a, b = again.items.get("a", content=True), again.items.get("b", content=True)
    assert a is not None
    assert b is not None
    assert a.source == Source.kept(b"bytes of a", "image/png")
    assert (b.source, b.label, b.metadata, b.seq) == (elsewhere.source, "cat", elsewhere.metadata, 1)
    assert again.items.get("a") == again.items.at([a.row])[a.row]
    assert again.items.get("a") != a  # without its bytes, as they were not asked for
    assert again.items.get("nothing") is None
    found = again.vectors.of(["b", "nothing", "a"], RELEASE)
    assert set(found) == {"a", "b"}
    np.testing.assert_array_equal(found["b"], vectors[1])
    assert again.vectors.of(["a"], OTHER_RELEASE) == {}


def test_an_upsert_tells_of_each_item_whether_it_was_new_or_changed(catalogue: Catalogue) -> None:
    vectors = unit_vectors(3)
    catalogue.upsert(items(["a", "b"]), vectors[:2], RELEASE)
    before = catalogue.items.get("a")
    assert catalogue.upsert(items(["b", "c", "a"]), vectors[[1, 2, 0]], RELEASE).outcomes == (
        "unchanged",
        "created",
        "unchanged",
    )
    assert catalogue.items.get("a") == before
    assert catalogue.vectors.changes_since(RELEASE, 1).rows.tolist() == [3]  # c only
    changed = [
        (item("a", label="cat"), vectors[0]),
        (item("a", label="cat", colour="red"), vectors[0]),
        (item("a", b"other bytes", label="cat", colour="red"), vectors[0]),
        (Item("a", Source.at("/a", b"other bytes"), "cat", {"colour": "red"}), vectors[0]),
        (Item("a", Source.at("/a", b"other bytes"), "cat", {"colour": "red"}), vectors[2]),
    ]
    for one, vector in changed:
        assert catalogue.upsert([one], vector[None], RELEASE).outcomes == ("replaced",)
        assert catalogue.upsert([one], vector[None], RELEASE).outcomes == ("unchanged",)
    after = catalogue.items.get("a", content=True)
    assert before is not None
    assert after is not None
    assert (after.row, after.created) == (before.row, before.created)
    assert after.source.content is None
    np.testing.assert_array_equal(catalogue.vectors.of(["a"], RELEASE)["a"], vectors[2])


@pytest.mark.parametrize(
    ("wrong", "vectors", "said"),
    [
        ([*items(["a"]), item("b\n")], unit_vectors(2), "an id is 'b"),
        (items(["a", "b", "a"]), unit_vectors(3), "id 'a' occurs twice in one upsert"),
        (items(["a", "b"]), unit_vectors(3), r"2 items came with vectors of shape \(3, 16\)"),
        (items(["a", "b"]), unit_vectors(2) * np.array([[1], [2]]), "the vector of item 'b' has norm 1.99999"),
        (items(["a"]), np.full((1, 16), np.nan), "the vector of item 'a' has norm nan"),
        (items(["a"]), unit_vectors(1, 8), "vectors have 8 numbers; those stored of release aaaaaaaaaaaaaaaa have 16"),
        ([], unit_vectors(0), "at least one item"),
    ],
)
def test_an_upsert_is_all_or_nothing(catalogue: Catalogue, wrong: list[Item], vectors: np.ndarray, said: str) -> None:
    fill(catalogue, unit_vectors(1))
    with pytest.raises(ItemError, match=said):
        catalogue.upsert(wrong, vectors, RELEASE)
    assert ids(catalogue) == ["n0"]
    assert catalogue.stats().seq == 1


def test_delete_by_ids_tells_what_was_missing_and_is_logged(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(5))
    assert catalogue.delete(["n1", "none", "n3", "n1"]) == Deleted(2, 2, ("none",))
    assert ids(catalogue) == ["n0", "n2", "n4"]
    assert catalogue.items.get("n1") is None
    assert catalogue.vectors.of(["n1"], RELEASE) == {}
    assert catalogue.vectors.changes_since(RELEASE, 1).deleted.tolist() == [2, 4]
    assert catalogue.delete(["n1"]) == Deleted(3, 0, ("n1",))
    assert catalogue.vectors.sequence(RELEASE) == 2
    stats = catalogue.stats()
    assert (stats.items, stats.sources_kept, stats.deletions_on_record) == (3, 3, 2)


def test_delete_by_filter(catalogue: Catalogue) -> None:
    catalogue.upsert([item(f"n{n}", price=n) for n in range(6)], unit_vectors(6), RELEASE)
    assert catalogue.delete(where=parse_filter({"price": {"lt": 3}})) == Deleted(2, 3, ())
    assert ids(catalogue) == ["n3", "n4", "n5"]
    assert catalogue.vectors.changes_since(RELEASE, 1).deleted.tolist() == [1, 2, 3]


def test_a_deletion_must_say_what(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    with pytest.raises(FilterError, match=r"\{\} would delete everything"):
        catalogue.delete(where=parse_filter({}))
    with pytest.raises(FilterError, match="ids or a filter, and not both"):
        catalogue.delete()
    with pytest.raises(FilterError, match="and not both"):
        catalogue.delete(["n0"], where=parse_filter({"label": "x"}))
    with pytest.raises(ItemError, match="an id is empty"):
        catalogue.delete([""])
    assert len(ids(catalogue)) == 2


def test_operations_of_one_transaction_fail_alone_and_have_numbers_of_their_own(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    good, bad = unit_vectors(2, seed=1), unit_vectors(1, 8)
    written = catalogue.write_many(
        [
            Upsert(items(["a", "b"]), good, RELEASE),
            Upsert(items(["c"]), bad, RELEASE),  # refused inside the transaction
            Upsert([item("x\n")], good[:1], RELEASE),  # refused before it
            Delete(["n0", "a"]),
            Delete(where=parse_filter({})),
            Upsert(items(["a"]), good[:1], RELEASE),
        ]
    )
    kinds = [type(one) for one in written]
    assert kinds == [Upserted, ItemError, ItemError, Deleted, FilterError, Upserted]
    assert [one.seq for one in written if isinstance(one, Upserted | Deleted)] == [2, 3, 4]
    assert written[5] == Upserted(4, ("created",))  # the a before was deleted in between
    assert ids(catalogue) == ["n1", "b", "a"]


def test_nothing_is_written_where_every_operation_is_refused(catalogue: Catalogue) -> None:
    (refused,) = catalogue.write_many([Delete([""])])
    assert isinstance(refused, ItemError)
    assert catalogue.write_many([]) == []
    assert catalogue.stats().seq == 0


def test_reading_is_of_one_moment(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    with catalogue.reading():
        assert catalogue.items.count() == 2
        writer = threading.Thread(target=lambda: fill(catalogue, unit_vectors(3, seed=1), prefix="m"))
        writer.start()
        writer.join()
        assert catalogue.items.count() == 2
        with catalogue.reading():
            assert catalogue.vectors.census(RELEASE).seq == 1
    assert catalogue.items.count() == 5


def test_stats(catalogue: Catalogue) -> None:
    catalogue.upsert(items(["a", "b"], label="cat"), unit_vectors(2), RELEASE)
    catalogue.upsert([Item("c", Source.at("/c", b"c"))], unit_vectors(1, 8), OTHER_RELEASE)
    catalogue.bases.put(BaseRecord(RELEASE, "x.faiss", "0", 2, 16, 1, "hnsw", 0.97, {"depth": 64}))
    stats = catalogue.stats()
    assert (stats.items, stats.seq, stats.labels, stats.sources_kept) == (3, 2, {"cat": 2, None: 1}, 2)
    assert stats.bytes_on_disk > 0
    ours, other = stats.releases
    assert (ours.release, ours.vectors, ours.seq, other.vectors, other.base) == (RELEASE, 2, 1, 1, None)
    assert ours.base == catalogue.bases.get(RELEASE)
    assert ours.base is not None
    assert (ours.base.kind, ours.base.recall, ours.base.facts) == ("hnsw", 0.97, {"depth": 64})


PARTS = {
    "": interface.Catalogue,
    "items": interface.Items,
    "vectors": interface.StoredVectors,
    "bases": interface.Bases,
    "spaces": interface.Spaces,
    "snapshots": interface.SnapshotFiles,
}


@pytest.mark.parametrize("part", PARTS)
def test_the_suite_uses_every_method_of_the_interface(part: str) -> None:
    suite = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    for name in PARTS[part].__abstractmethods__:
        call = rf"\.{part}\.{name}\(" if part else rf"\.{name}\("
        assert re.search(call, suite), f"nothing holds {part or 'catalogue'}.{name} to what the interface says"
