"""From what a request brings (`serving.protocol.body.Body`) to the typed request that the engine answers.

Ids, keys, what is included, and image files may be given several times, and all of them count; any other field that has
two different values is refused. Raises `RequestError` that names the field, its value and what is accepted. Whether
this server can carry the request out is asked later, by `serving.operations.refusals`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from serving.protocol.body import Body
from serving.protocol.image_text import image_of
from serving.protocol.messages import RequestError
from serving.protocol.operations import OPERATIONS, Operation, Request, SearchRequest, UpsertRequest
from serving.protocol.validation import ACCEPTED, SINGULAR, check_numbers, check_taken, request_from, value_from_text

Files = Sequence[tuple[str, bytes]]
_REPEATABLE = ("ids", "keys", "include")
_FREE = {"filter", "metadata", "items"}  # JSON of any kind
_SINGLE_ITEM = {"id": str, "label": str, "metadata": dict[str, Any]}  # the types of what may stand beside an image


def operation_asked(body: Body, path: str) -> Operation:
    """The operation that the query or form names, else the JSON, else the path; embed where none does."""
    name = body.text("op") or body.said.get("op") or path.strip("/") or "embed"
    if not isinstance(name, str) or name not in OPERATIONS:
        raise RequestError(f"op is {name!r}; it must be one of {', '.join(OPERATIONS)}")
    return OPERATIONS[name]


def request_of(body: Body, operation: Operation) -> Request:
    """The request of this operation. The texts of the query and the form go before the fields of the JSON."""
    values = _values(body, operation.name)
    files = body.files
    if operation.request is UpsertRequest:
        values = {"items": _items(values, files)}
    else:
        if operation.request is SearchRequest:
            files = _fill_in_examples(values, files)
        _gather_images(values, files, operation.name)
        for plural in ("ids", "vectors", "keys"):
            _put_first(values, plural)
    return request_from(values, operation.request, operation.name)


def _values(body: Body, op: str) -> dict[str, Any]:
    """By name, every value that the operation takes and that says something."""
    said = {name: value for name, value in body.said.items() if name != "op" and check_taken(name, value, op)}
    for name, texts in body.texts.items():
        if name != "op" and {check_taken(name, text, op) for text in texts} == {True}:
            said[name] = _from_texts(body, name, op)
    values = {name: value for name, value in said.items() if value is not None}
    for name in _FREE & values.keys():
        check_numbers(name, values[name])
    for plural in ("ids", "keys"):
        if plural in ACCEPTED[op] and (more := body.texts.get(SINGULAR[plural], ())[1:]):
            values[plural] = [*more, *_list(values, plural, Any)]
    return values


def _from_texts(body: Body, name: str, op: str) -> Any:
    """What the texts of one name say: a list where several may be given, and of `id` or `key` the first."""
    texts = body.texts[name]
    if name in _REPEATABLE and len(texts) > 1:
        lists = [_converted(name, value_from_text(text, name, op), list[Any]) for text in texts]
        return [one for each in lists for one in each]
    first_of_many = name in ("id", "key") and f"{name}s" in ACCEPTED[op]
    text = texts[0] if first_of_many else body.text(name)
    assert text is not None, "the body has a text of this name"
    return value_from_text(text, name, op)


def _gather_images(values: dict[str, Any], files: Files, op: str) -> None:
    """All images under `images`: the files that nothing names, then those of the JSON."""
    texts = [*_one(values, "image"), *_list(values, "images")]
    images = [*_contents(files), *(image_of(text, f"image {at}") for at, text in enumerate(texts))]
    if images and check_taken("images", images, op):
        values["images"] = images


def _put_first(values: dict[str, Any], plural: str) -> None:
    """A single `id`, `vector` or `key` becomes the first of its list."""
    if (singular := SINGULAR[plural]) in values:
        kind = list[float] if singular == "vector" else str
        values[plural] = [_converted(singular, values.pop(singular), kind), *_list(values, plural, Any)]


def _items(values: dict[str, Any], files: Files) -> Any:
    """The items of an upsert: each has its own id and image, or one item's fields stand beside its image."""
    if not (items := values.get("items")):
        return [_single_item(values, files)]
    if any(name in values for name in _SINGLE_ITEM):
        raise RequestError("id, label and metadata beside items: give each item its own")
    used = _files_named(items, files)
    if any(name not in used for name, _ in files) or "image" in values or values.get("images"):
        raise RequestError("an image of an upsert that no item names: an item's image is the name of its file")
    return _with_images(items, lambda at, one: f"the image of item {_get(one, 'id')!r}", used)


def _single_item(values: dict[str, Any], files: Files) -> dict[str, Any]:
    if "id" not in values:
        raise RequestError("upsert needs an id for its image, or items that each have an id and an image")
    texts = [*_one(values, "image"), *_list(values, "images")]
    if (count := len(files) + len(texts)) != 1:
        raise RequestError(f"upsert with an id takes one image, not {count}; for several give items")
    (image,) = (*_contents(files), *(image_of(text, "image") for text in texts))
    said = {name: _converted(name, values[name], kind) for name, kind in _SINGLE_ITEM.items() if name in values}
    return said | {"image": image}


def _fill_in_examples(values: dict[str, Any], files: Files) -> Files:
    """The images of positives and negatives; returns the other files, which are queries of their own."""
    used: dict[str, bytes] = {}
    for name in ("positives", "negatives"):
        if given := values.get(name):
            named = _files_named(given, files)
            used |= named
            values[name] = _with_images(given, _numbered(name.removesuffix("s")), named)
    return [(name, content) for name, content in files if name not in used]


def _files_named(values: Any, files: Files) -> dict[str, bytes]:
    """The files that are the image of an item or an example. Raises `RequestError` for a name that two files have."""
    images = [_get(one, "image") for one in values] if isinstance(values, list) else []
    wanted = {image for image in images if isinstance(image, str)}
    named: dict[str, bytes] = {}
    for name, content in files:
        if name in named:
            raise RequestError(f"two files are called {name!r}, so it names neither; give each a name of its own")
        if name in wanted:
            named[name] = content
    return named


def _contents(files: Files) -> list[bytes]:
    return [content for _, content in files]


def _with_images(values: Any, what: Callable[[int, Any], str], files: Mapping[str, bytes]) -> Any:
    """Items or examples whose images are bytes: of the file that each names, or from base64.

    What has another form stays as it is, for the conversion to a type to find fault with.
    """
    if not isinstance(values, list):
        return values
    found: list[Any] = []
    for at, one in enumerate(values):
        if isinstance(text := _get(one, "image"), str):
            image = files[text] if text in files else image_of(text, what(at, one))
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
