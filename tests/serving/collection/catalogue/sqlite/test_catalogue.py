import apsw

from serving.collection.catalogue.sqlite.catalogue import FILE_NAME, SqliteCatalogue
from serving.collection.catalogue.writes import Upsert, Upserted
from serving.collection.errors import CatalogueError
from tests.serving.collection.examples import RELEASE, fill, items, unit_vectors


def test_an_operation_that_sqlite_refuses_midway_leaves_nothing_and_the_others_stay(catalogue: SqliteCatalogue) -> None:
    fill(catalogue, unit_vectors(1))
    other = apsw.Connection(str(catalogue.folder / FILE_NAME))
    other.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON vectors WHEN (SELECT id FROM items WHERE row = new.item) = 'bad'"
        " BEGIN SELECT raise(ABORT, 'not this one'); END"
    )
    vectors = unit_vectors(3, seed=1)
    operations = [Upsert(items([name, f"{name}2"]), vectors[:2], RELEASE) for name in ("good", "bad", "fine")]
    first, second, third = catalogue.write_many(operations)
    assert isinstance(second, CatalogueError)
    assert "not this one" in str(second)
    assert isinstance(first, Upserted)
    assert isinstance(third, Upserted)
    assert (first.seq, third.seq) == (2, 3)
    assert [stored.id for stored in catalogue.items.page().items] == ["n0", "good", "good2", "fine", "fine2"]


def test_its_size_is_that_of_its_file_and_its_log(catalogue: SqliteCatalogue) -> None:
    fill(catalogue, unit_vectors(3))
    sizes = [(catalogue.folder / f"{FILE_NAME}{suffix}").stat().st_size for suffix in ("", "-wal")]
    assert min(sizes) > 0
    assert catalogue.stats().bytes_on_disk == sum(sizes)
