"""How often each value of a key occurs, counted in SQL."""

from typing import Any, NamedTuple

import apsw

from serving.collection.catalogue.facets import LABEL, Facet
from serving.collection.catalogue.metadata import scalar_stored, stored_scalar
from serving.collection.catalogue.vectors import Rows

_LABELS = "SELECT label AS value, row AS item FROM items WHERE label IS NOT NULL"
_TERMS = "SELECT value, item FROM terms WHERE key = ? AND value != ?"


class _Column(NamedTuple):
    """A query for each value of a key and the item that has it, and the query's parameters."""

    text: str
    parameters: tuple[Any, ...]


def facet(db: apsw.Connection, key: str, rows: Rows | None, *, limit: int) -> Facet:
    """The values of a key among these rows (N,), or among all items for None."""
    if rows is not None and not len(rows):
        return Facet((), 0, 0)
    text, parameters = _column(key, rows)
    counts = (
        f"SELECT value, count(*), count(*) OVER () FROM ({text}) GROUP BY value ORDER BY count(*) DESC, value LIMIT ?"
    )
    lines: list[Any] = db.execute(counts, (*parameters, limit)).fetchall()
    having: Any = db.execute(f"SELECT count(DISTINCT item) FROM ({text})", parameters).get
    items: Any = db.execute("SELECT count(*) FROM items").get if rows is None else len(rows)
    values = tuple((scalar_stored(value), count) for value, count, _ in lines)
    return Facet(values, lines[0][2] if lines else 0, items - having)


def _column(key: str, rows: Rows | None) -> _Column:
    text, parameters = (_LABELS, ()) if key == LABEL else (_TERMS, (key, stored_scalar(None)))
    if rows is None:
        return _Column(text, parameters)
    item = "row" if key == LABEL else "item"
    return _Column(f"{text} AND {item} IN carray(?)", (*parameters, apsw.carray(rows)))
