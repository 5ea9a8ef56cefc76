"""From what a request brings (`serving.protocol.body.Body`) to the typed request that the engine answers.

Raises `RequestError` that names the field, its value and what is accepted. Whether this server can carry the request
out is asked later, by `serving.operations.refusals`.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from serving.protocol.body import Body
from serving.protocol.messages import RequestError
from serving.protocol.operations import OPERATIONS, Operation, Request, SearchRequest, UpsertRequest
from serving.protocol.validation import SINGULAR, check_taken, request_from, value_from_text

_SINGLE_ITEM = {"id": str, "label": str, "metadata": dict[str, Any]}  # the types of what may stand beside an image


def operation_asked(body: Body, path: str) -> Operation:
    """The operation that the query or form names, else the JSON, else the path; embed where none does."""
    name = body.texts.get("op") or body.said.get("op") or path.strip("/") or "embed"
    if not isinstance(name, str) or name not in OPERATIONS:
        raise RequestError(f"op is {name!r}; it must be one of {', '.join(OPERATIONS)}")
    return OPERATIONS[name]


def request_of(body: Body, operation: Operation) -> Request:
    """The request of this operation. The texts of the query and the form go before the fields of the JSON."""
    values = _values(body, operation.name)
    files = dict(body.files)
    if operation.request is UpsertRequest:
        values = {"items": _items(values, files)}
    else:
        if operation.request is SearchRequest:
            _fill_in_examples(values, files)
        _gather_images(values, files, operation.name)
        for plural in ("ids", "vectors", "keys"):
            _put_first(values, plural)
    return request_from(values, operation.request, operation.name)


def _values(body: Body, op: str) -> dict[str, Any]:
    """By name, every value that the operation takes and that says something."""
    said = {name: value for name, value in body.said.items() if name != "op" and check_taken(name, value, op)}
    texts = {name: text for name, text in body.texts.items() if name != "op" and check_taken(name, text, op)}
    said |= {name: value_from_text(text, name, op) for name, text in texts.items()}
    return {name: value for name, value in said.items() if value is not None}


def _gather_images(values: dict[str, Any], files: Mapping[str, bytes], op: str) -> None:
    """All images under `images`: the files that nothing names, then those of the JSON."""
    texts = [*_one(values, "image"), *_list(values, "images")]
    images = [*files.values(), *(_from_base64(f"image {at}", text) for at, text in enumerate(texts))]
    if images and check_taken("images", images, op):
        values["images"] = images


def _put_first(values: dict[str, Any], plural: str) -> None:
    """A single `id`, `vector` or `key` becomes the first of its list."""
    if (singular := SINGULAR[plural]) in values:
        kind = list[float] if singular == "vector" else str
        values[plural] = [_converted(singular, values.pop(singular), kind), *_list(values, plural, Any)]


def _items(values: dict[str, Any], files: dict[str, bytes]) -> Any:
    """The items of an upsert: each has its own id and image, or one item's fields stand beside its image."""
    if not (items := values.get("items")):
        return [_single_item(values, files)]
    if any(name in values for name in _SINGLE_ITEM):
        raise RequestError("id, label and metadata beside items: give each item its own")
    used = _files_named(items, files)
    if len(used) < len(files) or "image" in values or values.get("images"):
        raise RequestError("an image of an upsert that no item names: an item's image is the name of its file")
    return _with_images(items, lambda at, one: f"the image of item {_get(one, 'id')!r}", files)


def _single_item(values: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    if "id" not in values:
        raise RequestError("upsert needs an id for its image, or items that each have an id and an image")
    texts = [*_one(values, "image"), *_list(values, "images")]
    if (count := len(files) + len(texts)) != 1:
        raise RequestError(f"upsert with an id takes one image, not {count}; for several give items")
    (image,) = (*files.values(), *(_from_base64("image", text) for text in texts))
    said = {name: _converted(name, values[name], kind) for name, kind in _SINGLE_ITEM.items() if name in values}
    return said | {"image": image}


def _fill_in_examples(values: dict[str, Any], files: dict[str, bytes]) -> None:
    """The images of positives and negatives; the files that they name are no queries of their own."""
    used: set[str] = set()
    for name in ("positives", "negatives"):
        if given := values.get(name):
            used |= _files_named(given, files)
            values[name] = _with_images(given, _numbered(name.removesuffix("s")), files)
    for name in used:
        del files[name]


def _files_named(values: Any, files: Mapping[str, bytes]) -> set[str]:
    """The files that are the image of an item or an example."""
    named = [_get(one, "image") for one in values] if isinstance(values, list) else []
    return {name for name in named if isinstance(name, str) and name in files}


def _with_images(values: Any, what: Callable[[int, Any], str], files: Mapping[str, bytes]) -> Any:
    """Items or examples whose images are bytes: of the file that each names, or from base64.

    What has another form stays as it is, for the conversion to a type to find fault with.
    """
    if not isinstance(values, list):
        return values
    found: list[Any] = []
    for at, one in enumerate(values):
        if isinstance(text := _get(one, "image"), str):
            image = files[text] if text in files else _from_base64(what(at, one), text)
            found.append(one | {"image": image})
        else:
            found.append(one)
    return found


def _numbered(what: str) -> Callable[[int, Any], str]:
    return lambda at, one: f"{what} {at}"


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _one(values: dict[str, Any], name: str) -> list[str]:
    return [_converted(name, values.pop(name), str)] if name in values else []


def _list(values: dict[str, Any], name: str, kind: Any = str) -> list[Any]:
    given: list[Any] = _converted(name, values.pop(name), list[kind]) if name in values else []
    return given


def _converted(name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RequestError(f"{name} can't be read: {error}") from error


def _from_base64(what: str, text: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RequestError(f"{what} is a data URI without ';base64,'")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"{what} is not valid base64: {error}") from error
