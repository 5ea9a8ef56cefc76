"""What is asked all the time is answered from indexes: no statement of these goes through a whole table."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.opening import open_catalogue
from serving.collection.catalogue.sqlite.catalogue import SqliteCatalogue
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.index import FaissIndex
from serving.collection.index.faiss.kinds import Plan
from tests.serving.collection.examples import OTHER_RELEASE, RELEASE, fill, item, items, unit_vectors

TABLES = ("items", "sources", "vectors", "terms", "deletions", "pending")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    catalogue = open_catalogue(tmp_path_factory.mktemp("plans"), create=True)
    fill(catalogue, unit_vectors(200))
    compact(catalogue, RELEASE, Plan(kind="hnsw"))
    catalogue.delete(["n1", "n2"])
    return catalogue


def scans(catalogue: Catalogue, ask: Callable[[], object]) -> list[str]:
    """The statements of `ask` that read a table from end to end, or every vector of a release."""
    assert isinstance(catalogue, SqliteCatalogue)
    db = catalogue.database.connection
    asked: list[tuple[str, Any]] = []

    def note(_: object, sql: str, bindings: Any) -> bool:
        asked.append((sql, bindings))
        return True

    db.exec_trace = note
    try:
        ask()
    finally:
        db.exec_trace = None
    assert asked
    return [
        f"{sql}: {step[3]}"
        for sql, bindings in asked
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))
        for step in db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)
        if step[3].startswith(tuple(f"SCAN {table}" for table in TABLES)) or _all_of_a_release(step[3])
    ]


def _all_of_a_release(step: str) -> bool:
    return step.startswith("SEARCH vectors") and step.endswith("(release=?)")


def test_catching_up_with_another_release_reads_what_it_needs(catalogue: Catalogue) -> None:
    catalogue.spaces.open(OTHER_RELEASE)
    try:
        changed = [item("n17", content=b"other", colour="red"), item("newer", colour="red")]
        assert scans(catalogue, lambda: catalogue.upsert(changed, unit_vectors(2, seed=3), RELEASE)) == []
        (first, *_, last) = catalogue.spaces.pending(OTHER_RELEASE, limit=20)
        assert scans(catalogue, lambda: catalogue.spaces.behind(OTHER_RELEASE)) == []
        assert scans(catalogue, lambda: catalogue.spaces.pending(OTHER_RELEASE, limit=5, after=last, until=100)) == []
        chosen = [first.row], [first.sha256]
        assert scans(catalogue, lambda: catalogue.spaces.fill(OTHER_RELEASE, *chosen, unit_vectors(1))) == []
        assert scans(catalogue, lambda: catalogue.spaces.fail(OTHER_RELEASE, [(last, "gone")])) == []
        assert scans(catalogue, lambda: catalogue.delete(["n18"])) == []
    finally:
        catalogue.spaces.close(OTHER_RELEASE)


def test_a_search_reads_what_it_needs(catalogue: Catalogue) -> None:
    neighbours = FaissIndex(catalogue, RELEASE, few_rows=10)
    queries = unit_vectors(3, seed=5)
    fill(catalogue, unit_vectors(5, seed=6), prefix="fresh")
    catalogue.delete(["n5"])
    assert scans(catalogue, lambda: neighbours.search(queries, 10)) == []
    assert scans(catalogue, lambda: neighbours.search(queries, 10, rows=np.arange(5))) == []
    assert scans(catalogue, lambda: catalogue.items.at([3, 4])) == []
    assert scans(catalogue, lambda: catalogue.vectors.of(["n3", "n4"], RELEASE)) == []


def test_a_write_reads_what_it_needs(catalogue: Catalogue) -> None:
    changed = [item("n7", colour="red"), item("new", colour="red")]
    assert scans(catalogue, lambda: catalogue.upsert(changed, unit_vectors(2, seed=3), RELEASE)) == []
    assert scans(catalogue, lambda: catalogue.upsert(items(["n7"]), unit_vectors(1, seed=3), RELEASE)) == []
    assert scans(catalogue, lambda: catalogue.delete(["n8", "n9"])) == []
    assert scans(catalogue, lambda: catalogue.delete(where=parse_filter({"colour": "red"}))) == []


@pytest.mark.parametrize(
    "written",
    [
        {"label": "cat"},
        {"label": None},
        {"id": {"in": ["n1", "n2"]}},
        {"colour": "red"},
        {"colour": {"in": ["red", None]}},
        {"price": {"gte": 1, "lt": 5}},
        {"price": {"gt": "a"}},
        {"camera": {"exists": True}},
        {"colour": "red", "not": {"price": 1}},
        {"or": [{"colour": "red"}, {"label": "cat"}]},
    ],
)
def test_a_filter_reads_what_it_needs(catalogue: Catalogue, written: dict[str, Any]) -> None:
    assert scans(catalogue, lambda: catalogue.items.rows_matching(parse_filter(written))) == []
    assert scans(catalogue, lambda: catalogue.items.page(parse_filter(written), limit=5)) == []


def test_one_item_and_a_page_of_them_read_what_they_need(catalogue: Catalogue) -> None:
    assert scans(catalogue, lambda: catalogue.items.get("n3", content=True)) == []
    assert scans(catalogue, lambda: catalogue.items.page(limit=5, cursor="20")) == []
