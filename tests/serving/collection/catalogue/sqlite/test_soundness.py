"""Snapshots that somebody made to do harm, or that are broken: refused at once, and nothing changes."""

import time
from pathlib import Path

import apsw
import numpy as np
import pytest

from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import SqliteCatalogue
from serving.collection.errors import CatalogueError
from tests.serving.collection.catalogue.sqlite.test_schema import first_catalogue
from tests.serving.collection.examples import RELEASE, fill, items, unit_vectors

FOR_EVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
HOSTILE = {
    "a view in place of a table": f"DROP TABLE sources; CREATE VIEW sources AS SELECT ({FOR_EVER}) AS item",
    "a view besides": f"CREATE VIEW more AS {FOR_EVER}",
    "a trigger": f"CREATE TRIGGER t AFTER INSERT ON items BEGIN {FOR_EVER}; END",
    "a computed column": "ALTER TABLE items ADD COLUMN extra ANY AS (hex(zeroblob(100000000)))",
    "another column": "ALTER TABLE items ADD COLUMN extra TEXT",
    "an index over a computation": "CREATE INDEX slow ON items(length(hex(id)))",
    "a virtual table": "CREATE VIRTUAL TABLE v USING fts5(x)",
    "a missing table": "DROP TABLE terms",
    "a table of other types": "DROP TABLE spaces; CREATE TABLE spaces(release, complete)",
    "metadata that is no JSON": "UPDATE items SET metadata = '{nonsense' WHERE id = 'n1'",
    "metadata that is a list": "UPDATE items SET metadata = '[1]' WHERE id = 'n1'",
    "metadata with NaN": "UPDATE items SET metadata = '{\"a\": NaN}' WHERE id = 'n1'",
    "deep metadata": "UPDATE items SET metadata = replace(hex(zeroblob(15000)), '00', '[[') WHERE id = 'n1'",
    "large metadata": "UPDATE items SET metadata = '{\"a\": \"' || hex(zeroblob(40000)) || '\"}' WHERE id = 'n1'",
    "an empty id": "UPDATE items SET id = '' WHERE id = 'n1'",
    "an id with a zero": "UPDATE items SET id = 'a' || char(0) WHERE id = 'n1'",
    "a long label": "UPDATE items SET label = hex(zeroblob(1000)) WHERE id = 'n1'",
    "a path with a zero": "DELETE FROM sources WHERE item = 2; UPDATE items SET path = '/a' || char(0) WHERE row = 2",
    "neither bytes nor path": "DELETE FROM sources WHERE item = 2",
    "a short digest": "UPDATE items SET sha256 = x'00' WHERE id = 'n1'",
    "the last row": "PRAGMA foreign_keys = OFF; UPDATE items SET row = 9223372036854775807 WHERE id = 'n4'",
    "the last of all rows was given": "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    "the last sequence number": "UPDATE sequence SET last = 9223372036854775807",
    "a negative sequence number": "UPDATE sequence SET last = -1",
    "no sequence number": "DELETE FROM sequence",
    "a moment that no calendar has": "UPDATE items SET created = 9223372036854775807",
    "a size that is not the picture's": "UPDATE items SET bytes = 1000000000 WHERE id = 'n1'",
    "a short vector": "UPDATE vectors SET vector = x'0000803f' WHERE item = 2",
    "a vector of no numbers": "UPDATE vectors SET vector = CAST(x'0000c07f' || substr(vector, 5) AS BLOB)",
    "a long vector": "UPDATE vectors SET vector = CAST(x'00000041' || substr(vector, 5) AS BLOB)",
    "another dimension": "UPDATE changes SET dim = 8",
    "a vector of a release that is not on record": "UPDATE vectors SET release = 'x' WHERE item = 2",
}


@pytest.fixture
def snapshot(catalogue: SqliteCatalogue, tmp_path: Path) -> Path:
    fill(catalogue, unit_vectors(5))
    catalogue.upsert(items(["tagged"], colour="red"), unit_vectors(1), RELEASE)
    catalogue.snapshots.save(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_snapshot_is_refused_at_once(catalogue: SqliteCatalogue, snapshot: Path, how: str) -> None:
    db = apsw.Connection(str(snapshot))
    db.execute(HOSTILE[how])
    db.close()
    before = catalogue.last_write()
    began = time.monotonic()
    with pytest.raises(CatalogueError, match=r"snapshot|damaged"):
        catalogue.snapshots.restore(snapshot)
    assert time.monotonic() - began < 5
    assert (catalogue.last_write(), catalogue.items.count()) == (before, 6)
    assert catalogue.delete(["n1"]).count == 1  # nobody holds the lock


def test_values_of_another_type_than_the_table_says_are_found(catalogue: SqliteCatalogue, snapshot: Path) -> None:
    """`writable_schema` lets a table that takes anything pass for one that does not."""
    db = apsw.Connection(str(snapshot))
    sql = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'items'").get
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    db.pragma("writable_schema", True)
    db.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'items'")
    db.close()
    db = apsw.Connection(str(snapshot))
    db.execute("UPDATE items SET label = x'ff' WHERE id = 'n1'")
    db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    db.pragma("writable_schema", True)
    db.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'items'", (sql,))
    db.close()
    with pytest.raises(CatalogueError, match=r"damaged|label"):
        catalogue.snapshots.restore(snapshot)


def test_a_snapshot_is_attached_for_reading_alone(catalogue: SqliteCatalogue, snapshot: Path) -> None:
    content = snapshot.read_bytes()
    assert catalogue.snapshots.restore(snapshot) == 6
    assert snapshot.read_bytes() == content
    catalogue.snapshots.save(snapshot)  # attaching to write works again


def test_a_snapshot_of_a_collection_that_came_from_an_older_schema_is_sound(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    first_catalogue(tmp_path / "old")
    open_catalogue(tmp_path / "old").snapshots.save(tmp_path / "saved")
    assert open_catalogue(tmp_path / "new", create=True).snapshots.restore(tmp_path / "saved") == 40


def test_an_empty_snapshot_leaves_the_rows_that_were_given(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    catalogue.snapshots.save(tmp_path / "empty")
    fill(catalogue, unit_vectors(5))
    assert catalogue.snapshots.restore(tmp_path / "empty") == 0
    fill(catalogue, unit_vectors(1))
    np.testing.assert_array_equal(catalogue.items.contents()[0], [6])
