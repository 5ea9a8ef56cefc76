"""What every catalogue must do when several write to it, and when its disk is full."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.writes import Upsert
from serving.collection.errors import (
    CatalogueBusy,
    CatalogueFull,
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


def test_every_opening_sees_at_once_what_another_wrote(catalogue: Catalogue, opener: Opener) -> None:
    other = opener.open(catalogue.folder)
    for step, vector in enumerate(unit_vectors(6)):
        writer, reader = ((catalogue, other), (other, catalogue))[step % 2]
        seq = writer.upsert([item(f"n{step}")], vector[None], RELEASE).seq
        assert reader.last_write() == reader.vectors.sequence(RELEASE) == reader.bases.position(RELEASE).seq == seq
        np.testing.assert_array_equal(reader.vectors.changes_since(RELEASE, seq - 1).vectors, vector[None])
        assert reader.items.count() == step + 1
        assert reader.spaces.open(OTHER_RELEASE).pending == step + 1
    assert catalogue.delete(["n0"]).seq == other.last_write() == 7


def test_who_follows_by_number_misses_nothing_that_many_write_at_once(catalogue: Catalogue, opener: Opener) -> None:
    """A number that is taken before its transaction commits would be passed over by whoever saw a later one."""

    def write(writer: int) -> list[int]:
        own = opener.open(catalogue.folder)
        vectors = unit_vectors(12, seed=writer)
        return [own.upsert([item(f"{writer}-{n}")], vectors[n : n + 1], RELEASE).seq for n in range(12)]

    seen_rows: set[int] = set()
    seq = 0
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        done = False
        while not done:
            done = all(writer.done() for writer in writers)
            changes = catalogue.vectors.changes_since(RELEASE, seq)
            seq, seen_rows = changes.seq, seen_rows | set(changes.rows.tolist())
    assert seen_rows == set(catalogue.vectors.census(RELEASE).rows.tolist())
    assert sorted(number for writer in writers for number in writer.result()) == list(range(1, 49))


def test_who_waits_too_long_for_others_is_refused_and_may_try_again(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(1))
    with opener.busy(catalogue):
        with pytest.raises(CatalogueBusy, match="was busy with others' writes"):
            fill(catalogue, unit_vectors(1), prefix="m")
        assert catalogue.items.count() == 1
    fill(catalogue, unit_vectors(1), prefix="m")
    assert (catalogue.items.count(), catalogue.last_write()) == (2, 2)


def test_a_full_disk_refuses_the_whole_write_and_reading_goes_on(catalogue: Catalogue, opener: Opener) -> None:
    fill(catalogue, unit_vectors(3))
    operations = [Upsert(items([f"{n}"]), unit_vectors(1, 16, seed=n), RELEASE) for n in range(2)]
    large = Upsert([item("large", content=bytes(100_000))], unit_vectors(1), RELEASE)
    with opener.full(catalogue):
        with pytest.raises(CatalogueFull, match="is the disk full"):
            catalogue.write_many([*operations, large])
        assert catalogue.items.count() == 3
    assert len(catalogue.write_many([*operations, large])) == 3
    assert (catalogue.items.count(), catalogue.last_write()) == (6, 4)
