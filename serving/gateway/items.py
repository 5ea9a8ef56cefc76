"""The items of a collection at their own addresses, where that is more than an operation by another name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from serving.gateway.call import Call
from serving.gateway.operations import Ask, check_collection, only
from serving.gateway.request_schemas import MOST_IN_QUERY
from serving.gateway.service import Service
from serving.protocol.agreed import DEFAULT_COLLECTION
from serving.protocol.body import Body, read_json
from serving.protocol.media_types import JSON
from serving.protocol.messages import Answer, RequestError
from serving.protocol.operations import OPERATIONS
from serving.protocol.parts import Part, body_from
from serving.protocol.wire import Reply, encode, request_for

MERGE_PATCH = "application/merge-patch+json"
_GET = Ask("get")


class ItemsOrPage(Ask):
    """Those items whose ids the query has; without any, a page of all."""

    async def __call__(self, service: Service, call: Call) -> Reply:
        """List, or get."""
        if any(name in ("id", "ids") for name, _ in call.query):
            return await _GET(service, call)
        return await super().__call__(service, call)


class PutItem(Ask):
    """Stores an item; the reply is 201 where there was none."""

    async def __call__(self, service: Service, call: Call) -> Reply:
        """Store it, and say where it is if it is new."""
        answer, media_type = await self.answer(service, call)
        reply = encode(answer, media_type)
        if isinstance(answer, Answer) and answer.more["outcome"] == "created":
            address = f"/v1/collections/{DEFAULT_COLLECTION}/items/{quote(call.params['id'], safe='')}"
            return replace(reply, status=201, headers={**reply.headers, "location": address})
        return reply


class PatchItem(Ask):
    """Changes label and metadata of an item, by a merge patch of both."""

    async def __call__(self, service: Service, call: Call) -> Reply:
        """Change it."""
        check_collection(call)
        accept = call.headers.get("accept", "")
        body = _change(call.params["id"], body_from(call.query, _as_json(await call.parts()), accept=accept))
        request, media_type = request_for(body, OPERATIONS[self.operation], accept)
        return encode(only(await service.ask(call, request)), media_type)


ITEMS_OR_PAGE, PUT_ITEM = ItemsOrPage("list"), PutItem("upsert", single=True)
PATCH_ITEM = PatchItem("update", single=True)

IDS: Mapping[str, Any] = {
    "name": "id",
    "in": "query",
    "description": "The items to get, in place of a page.",
    "style": "form",
    "explode": True,
    "schema": {"type": "array", "items": {"type": "string"}, "maxItems": MOST_IN_QUERY},
}
CREATED: Mapping[str, Any] = {
    "responses": {
        "201": {
            "description": "Created",
            "headers": {"location": {"schema": {"type": "string"}}},
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/OneStored"}}},
        }
    }
}


def _change(name: str, body: Body) -> Body:
    """The same as an update of many has it."""
    said, texts = dict(body.said), dict(body.texts)
    if said.keys() & {"id", "ids", "items"} or texts.keys() & {"id", "ids", "items"}:
        raise RequestError(f"the path says already that it is the item {name!r:.80}: leave id and items out elsewhere")
    change: dict[str, Any] = {"id": name}
    change |= {field: said.pop(field) for field in ("label", "metadata") if field in said}
    change |= _texts(body)
    for field in ("label", "metadata"):
        texts.pop(field, None)
    return Body({**said, "items": [change]}, texts, body.files)


def _texts(body: Body) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    if (label := body.text("label")) is not None:
        found["label"] = label
    if (metadata := body.text("metadata")) is not None:
        found["metadata"] = read_json(metadata, what="metadata, which is JSON,")
    return found


def _as_json(parts: Sequence[Part]) -> list[Part]:
    """A merge patch is JSON."""
    return [replace(one, media_type=JSON) if _is_merge_patch(one.media_type) else one for one in parts]


def _is_merge_patch(media_type: str | None) -> bool:
    return (media_type or "").partition(";")[0].strip().lower() == MERGE_PATCH
