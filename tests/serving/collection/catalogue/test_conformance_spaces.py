"""Every write reaches every space, whoever wrote it; a vector is stored only for the bytes that it is of."""

import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.spaces import Part, Space
from serving.collection.errors import ItemError
from serving.collection.index.faiss.compaction import clear, compact
from serving.collection.index.faiss.index import FaissIndex
from tests.serving.collection.catalogue.openers import Opener
from tests.serving.collection.catalogue.spaces import fill_all, space_of, waiting
from tests.serving.collection.examples import (
    OTHER_RELEASE,
    QUERIES,
    RELEASE,
    assert_same,
    brute_force,
    clustered_vectors,
    fill,
    item,
    items,
    stored,
    unit_vectors,
)

THIRD = "c" * 64


def test_what_one_space_writes_waits_in_the_others(both: Catalogue) -> None:
    both.spaces.open(THIRD)
    names = fill(both, unit_vectors(3))
    assert (waiting(both, RELEASE), waiting(both), waiting(both, THIRD)) == ([], names, names)
    assert both.spaces.behind(OTHER_RELEASE)
    assert not both.spaces.behind(RELEASE)
    both.upsert(items(["n1"]), unit_vectors(1, 8), OTHER_RELEASE)
    assert (waiting(both), waiting(both, THIRD)) == (["n0", "n2"], ["n0", "n2", "n1"])
    assert fill_all(both) == 2
    assert not both.spaces.behind(OTHER_RELEASE)
    assert both.vectors.sequence(OTHER_RELEASE) == both.stats().seq


def test_only_other_bytes_make_an_item_wait_again(both: Catalogue) -> None:
    fill(both, unit_vectors(2))
    fill_all(both)
    both.upsert([item("n0", label="new"), item("n1", colour="red")], unit_vectors(2), RELEASE)
    assert waiting(both) == []
    both.upsert([item("n1", content=b"other")], unit_vectors(1), RELEASE)
    assert waiting(both) == ["n1"]
    both.upsert(items(["n1"]), unit_vectors(1), RELEASE)  # as it was: its vector is of these bytes
    assert waiting(both) == []


def test_a_deletion_takes_what_waits_with_it(both: Catalogue) -> None:
    fill(both, unit_vectors(3))
    both.delete(["n0", "n2"])
    assert waiting(both) == ["n1"]


def test_a_space_begins_with_all_that_it_lacks_and_is_complete_when_nothing_waits(catalogue: Catalogue) -> None:
    names = fill(catalogue, unit_vectors(5))
    catalogue.upsert(items(["n3"]), unit_vectors(1, 8), OTHER_RELEASE)
    assert catalogue.spaces.open(OTHER_RELEASE) == Space(OTHER_RELEASE, complete=False, pending=4, failed=0)
    assert not catalogue.spaces.behind(OTHER_RELEASE)  # searches do not wait for a space that is filling
    first = catalogue.spaces.pending(OTHER_RELEASE, limit=2)
    later = catalogue.spaces.pending(OTHER_RELEASE, limit=9, after=first[-1])
    assert [one.id for one in [*first, *later]] == [name for name in names if name != "n3"]
    catalogue.delete([one.id for one in later])
    assert catalogue.spaces.fail(OTHER_RELEASE, [(first[0], "it is gone")]) == 1
    assert not space_of(catalogue).complete
    assert catalogue.spaces.fill(OTHER_RELEASE, [first[1].row], [first[1].sha256], unit_vectors(1, 8)) == 1
    assert space_of(catalogue) == Space(OTHER_RELEASE, complete=True, pending=0, failed=1)
    assert catalogue.spaces.failures(OTHER_RELEASE, limit=5) == {"n0": "it is gone"}


def test_a_space_whose_last_waiting_item_was_deleted_can_be_settled(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(2))
    catalogue.spaces.open(OTHER_RELEASE)
    catalogue.delete(["n0", "n1"])
    catalogue.spaces.settle(OTHER_RELEASE)
    assert space_of(catalogue).complete


def test_a_vector_of_bytes_that_were_replaced_is_not_stored(both: Catalogue) -> None:
    fill(both, unit_vectors(2))
    old = both.spaces.pending(OTHER_RELEASE, limit=9)
    both.upsert([item("n0", content=b"newer")], unit_vectors(1), RELEASE)
    chosen = [one.row for one in old], [one.sha256 for one in old]
    assert both.spaces.fill(OTHER_RELEASE, *chosen, unit_vectors(2, 8)) == 1
    assert waiting(both) == ["n0"]
    before = both.vectors.sequence(OTHER_RELEASE)
    assert both.spaces.fill(OTHER_RELEASE, *chosen, unit_vectors(2, 8, seed=1)) == 0  # n1 waits no more
    assert both.vectors.sequence(OTHER_RELEASE) == before
    assert both.spaces.fail(OTHER_RELEASE, [(old[0], "of the old bytes")]) == 0
    assert waiting(both) == ["n0"]


def test_what_failed_is_tried_again_when_it_is_written_or_asked_for(both: Catalogue) -> None:
    fill(both, unit_vectors(3))
    both.spaces.fail(OTHER_RELEASE, [(one, "no") for one in both.spaces.pending(OTHER_RELEASE, limit=9)])
    assert not both.spaces.behind(OTHER_RELEASE)
    both.upsert(items(["n1"]), unit_vectors(1), RELEASE)
    assert (waiting(both), both.spaces.behind(OTHER_RELEASE)) == (["n1"], True)
    both.spaces.retry_failed(OTHER_RELEASE, Part(1, 2))  # rows 1 and 3
    assert (waiting(both), both.spaces.behind(OTHER_RELEASE)) == (["n0", "n2", "n1"], False)
    fill_all(both)
    assert space_of(both) == Space(OTHER_RELEASE, complete=True, pending=0, failed=0)


def test_parts_share_what_waits(both: Catalogue) -> None:
    names = fill(both, unit_vectors(20))
    parts = [both.spaces.pending(OTHER_RELEASE, limit=99, part=Part(index, 3)) for index in range(3)]
    assert sorted(one.row for part in parts for one in part) == list(range(1, 21))
    assert [both.spaces.count_pending(OTHER_RELEASE, Part(index, 3)) for index in range(3)] == [*map(len, parts)]
    assert len(names) == 20


def test_what_can_not_be_stored_is_refused(both: Catalogue) -> None:
    fill(both, unit_vectors(1))
    (one,) = both.spaces.pending(OTHER_RELEASE, limit=1)
    with pytest.raises(ItemError, match=r"has norm 1\.99"):
        both.spaces.fill(OTHER_RELEASE, [one.row], [one.sha256], 2 * unit_vectors(1, 8))
    with pytest.raises(ItemError, match="1 rows came with 0 digests"):
        both.spaces.fill(OTHER_RELEASE, [one.row], [], unit_vectors(1, 8))
    both.spaces.fill(OTHER_RELEASE, [one.row], [one.sha256], unit_vectors(1, 8))
    both.upsert([item("n1")], unit_vectors(1), RELEASE)
    (one,) = both.spaces.pending(OTHER_RELEASE, limit=1)
    with pytest.raises(ItemError, match="vectors have 16 numbers; those stored of release b"):
        both.spaces.fill(OTHER_RELEASE, [one.row], [one.sha256], unit_vectors(1))


def test_a_closed_space_is_gone_and_costs_no_write_anything(
    both: Catalogue, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    opener.in_small_steps(monkeypatch)
    fill(both, clustered_vectors(40))
    fill_all(both)
    compact(both, OTHER_RELEASE)
    fill(both, clustered_vectors(10, seed=1), prefix="later")
    both.spaces.close(OTHER_RELEASE)
    clear(both)
    fill(both, clustered_vectors(3, seed=2), prefix="last")
    assert [one.release for one in both.spaces.all()] == [one.release for one in both.stats().releases] == [RELEASE]
    assert (waiting(both), both.bases.files(), [*both.folder.glob("*.faiss")]) == ([], set(), [])
    found = FaissIndex(both, RELEASE).search(QUERIES, 10)
    assert_same(found, brute_force(*stored(both), QUERIES, 10))
    assert both.spaces.open(OTHER_RELEASE).pending == 53
    assert fill_all(both, dim=4) == 53  # it begins anew, even with vectors of other lengths


def test_a_vector_for_a_space_that_was_closed_meanwhile_is_not_stored(both: Catalogue) -> None:
    fill(both, unit_vectors(1))
    (one,) = both.spaces.pending(OTHER_RELEASE, limit=1)
    both.spaces.close(OTHER_RELEASE)
    assert both.spaces.fill(OTHER_RELEASE, [one.row], [one.sha256], unit_vectors(1, 8)) == 0
    assert len(both.vectors.census(OTHER_RELEASE).rows) == 0


def test_a_space_is_settled_with_a_few_left_over_but_not_with_more(catalogue: Catalogue) -> None:
    fill(catalogue, unit_vectors(3))
    catalogue.spaces.open(OTHER_RELEASE)
    catalogue.spaces.settle_but(OTHER_RELEASE, 2)
    assert not space_of(catalogue).complete
    catalogue.spaces.settle_but(OTHER_RELEASE, 3)
    assert space_of(catalogue) == Space(OTHER_RELEASE, complete=True, pending=3, failed=0)
    assert catalogue.spaces.behind(OTHER_RELEASE)
    assert not catalogue.spaces.behind(OTHER_RELEASE, until=0)
