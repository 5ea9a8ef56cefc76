"""Labels of many items from a table, which is sent as it is: `curl --data-binary @labels.csv .../labels`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from serving.gateway.call import Call
from serving.gateway.operations import check_collection
from serving.gateway.service import Service
from serving.protocol.agreed import ID_COLUMN, LABEL_COLUMN, MAX_IDS
from serving.protocol.body import Body
from serving.protocol.labels import labels_from_csv
from serving.protocol.messages import RequestError
from serving.protocol.operations import ItemChange, UpdateRequest
from serving.protocol.parts import body_from
from serving.protocol.wire import Reply

_NAMED = 20  # of the ids that no item has, and of the errors

_FORM = {"type": "object", "properties": {"table": {"type": "string", "format": "binary"}}, "required": ["table"]}
_TEXTS = {"id_column": ID_COLUMN, "label_column": LABEL_COLUMN}
ABOUT_LABELS: Mapping[str, Any] = {
    "parameters": [
        *({"name": name, "in": "query", "schema": {"type": "string", "default": of}} for name, of in _TEXTS.items()),
        {"name": "remove_empty", "in": "query", "schema": {"type": "boolean", "default": False}},
    ],
    "requestBody": {
        "required": True,
        "content": {
            **{name: {"schema": {"type": "string"}} for name in ("text/csv", "text/tab-separated-values")},
            "multipart/form-data": {"schema": _FORM},
        },
    },
}

Labels = Sequence[tuple[str, str | None]]


class Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which columns of the table are read, and whether an empty label removes the one that the item has."""

    id_column: str = ID_COLUMN
    label_column: str = LABEL_COLUMN
    remove_empty: bool = False


class Labelling(msgspec.Struct):
    """What became of the rows: how many items have another label now, and how many had this one already.

    `empty` rows have no label and were passed over; of `unknown` ids there is no item. The first of those, and of what
    could not be changed for another reason, are named.
    """

    updated: int = 0
    unchanged: int = 0
    empty: int = 0
    unknown: int = 0
    failed: int = 0
    unknown_ids: list[str] = msgspec.field(default_factory=list)
    errors: list[str] = msgspec.field(default_factory=list)
    release: str = ""

    def count(self, name: str, result: Any) -> None:
        """Add what became of one item."""
        if isinstance(result, RequestError) and result.status == 404:
            self.unknown += 1
            self.unknown_ids += [name] if self.unknown <= _NAMED else []
        elif isinstance(result, Exception):
            self.failed += 1
            self.errors += [f"{name}: {result}"] if self.failed <= _NAMED else []
        else:
            changed = result["outcome"] == "updated"
            self.updated += changed
            self.unchanged += not changed


async def labels(service: Service, call: Call) -> Reply:
    """Give the items of a table their labels, a thousand at a time."""
    check_collection(call)
    columns, table = _read(body_from(call.query, await call.parts()))
    rows = await asyncio.to_thread(
        labels_from_csv, table, id_column=columns.id_column, label_column=columns.label_column
    )
    given = [row for row in rows if columns.remove_empty or row[1] is not None]
    done = Labelling(empty=len(rows) - len(given))
    for at in range(0, len(given), MAX_IDS):
        await _send(service, call, given[at : at + MAX_IDS], done)
    return Reply(200, orjson.dumps(msgspec.to_builtins(done)))


def _read(body: Body) -> tuple[Columns, bytes]:
    if body.said or len(body.files) != 1:
        raise RequestError(f"labels takes one table, CSV or TSV, as the body or as a file; not {len(body.files)}")
    named = {name: body.text(name) for name in body.texts}
    try:
        columns = msgspec.convert(named, Columns, strict=False)
    except msgspec.ValidationError as error:
        raise RequestError(f"{error}; labels takes {', '.join(Columns.__struct_fields__)}") from error
    ((_, table),) = body.files
    return columns, table


async def _send(service: Service, call: Call, rows: Labels, done: Labelling) -> None:
    changes = tuple(ItemChange(name, label) for name, label in rows)
    answer = await service.ask(call, UpdateRequest(changes))
    if isinstance(answer, RequestError):
        before = done.updated + done.unchanged
        message = f"{answer}; {before} items have their labels: send the table again"
        raise RequestError(message, answer.status, retry_after=answer.retry_after)
    done.release = answer.release
    for (name, _), result in zip(rows, answer.results, strict=True):
        done.count(name, result)
