"""Names that repeat in a query or a form: all values count, or the request is refused."""

import json
from typing import Any

import pytest

from serving.protocol.messages import RequestError
from serving.protocol.operations import (
    DeleteRequest,
    EmbedRequest,
    Example,
    GetRequest,
    NewItem,
    Request,
    SearchRequest,
    UpsertRequest,
)
from serving.protocol.parts import MAX_FIELDS, Part
from serving.protocol.wire import parse

PNG = "image/png"


def asked(*query: tuple[str, str], parts: tuple[Part, ...] = ()) -> Request:
    return parse(query, parts, headers={})[0]


def text(name: str, value: Any) -> Part:
    return Part(name, (value if isinstance(value, str) else json.dumps(value)).encode())


def file(name: str, content: bytes) -> Part:
    return Part(name, content, PNG)


@pytest.mark.parametrize("name", ["image", "files[]", "image[]", "body"])
def test_files_of_one_name_are_all_images_in_order(name: str) -> None:
    parts = (file(name, b"1"), file("other", b"2"), file(name, b"3"))
    assert asked(parts=parts) == EmbedRequest((b"1", b"2", b"3"))


def test_ids_and_what_is_included_may_repeat() -> None:
    assert asked(("op", "get"), ("id", "a"), ("id", "b"), ("include", "metadata"), ("include", "vector,image")) == (
        GetRequest(("a", "b"), frozenset(["metadata", "vector", "image"]))
    )
    assert asked(("op", "delete"), ("ids", '["a"]'), ("ids", '["b", "c"]')) == DeleteRequest(("a", "b", "c"))
    assert asked(("op", "search"), ("id", "a"), parts=(text("id", "b"), text("ids", ["c"]))) == (
        SearchRequest(ids=("a", "b", "c"))
    )


def test_the_query_goes_before_the_json_as_ever() -> None:
    body = Part("body", b'{"op": "count", "id": "x", "ids": ["y"], "k": 3}', "application/json; charset=utf-8")
    request = asked(("op", "search"), ("id", "a"), ("id", "b"), ("k", "5"), parts=(body,))
    assert request == SearchRequest(ids=("a", "b", "y"), k=5)


@pytest.mark.parametrize(
    ("query", "parts", "first", "second"),
    [
        ([("op", "count"), ("op", "stats")], (), "'count'", "'stats'"),
        ([("op", "search"), ("id", "a"), ("k", "3"), ("k", "5")], (), "'3'", "'5'"),
        ([("op", "search"), ("id", "a"), ("k", "3")], (text("k", "5"),), "'3'", "'5'"),
        ([("op", "list")], (text("filter", {"label": "x"}), text("filter", {"label": "y"})), "x", "y"),
        ([("op", "upsert"), ("id", "a"), ("id", "b")], (file("image", b"1"),), "'a'", "'b'"),
        ([], tuple(Part("more", b'{"op": "list", "limit": %d}' % n, "application/json") for n in (1, 2)), "1", "2"),
    ],
)
def test_any_other_option_with_two_values_is_refused(
    query: list[tuple[str, str]], parts: tuple[Part, ...], first: str, second: str
) -> None:
    with pytest.raises(RequestError, match=f"is given twice, as .*{first}.* and as .*{second}") as caught:
        asked(*query, parts=parts)
    assert caught.value.status == 400


def test_an_option_that_says_the_same_twice_is_taken() -> None:
    assert asked(("op", "search"), ("k", "3"), ("id", "a"), parts=(text("k", "3"),)) == SearchRequest(ids=("a",), k=3)


def test_an_option_that_is_not_taken_is_refused_in_whichever_place() -> None:
    with pytest.raises(RequestError, match="count takes no group_by"):
        asked(("op", "count"), ("group_by", ""), ("group_by", "label"))


def test_a_file_that_is_referred_to_has_a_name_of_its_own() -> None:
    parts = (text("positives", [{"image": "one"}]), file("one", b"1"), file("one", b"2"))
    with pytest.raises(RequestError, match="two files are called 'one'"):
        asked(("op", "search"), parts=parts)
    items = text("items", [{"id": "a", "image": "one"}])
    with pytest.raises(RequestError, match="two files are called 'one'"):
        asked(("op", "upsert"), parts=(items, *parts[1:]))
    with pytest.raises(RequestError, match="takes one image, not 2"):
        asked(("op", "upsert"), ("id", "a"), parts=parts[1:])
    assert asked(("op", "upsert"), parts=(items, parts[1])) == UpsertRequest((NewItem("a", b"1"),))
    others = (file("two", b"3"), file("two", b"4"))
    assert asked(("op", "search"), parts=(*parts[:2], *others)) == (
        SearchRequest((b"3", b"4"), positives=(Example(image=b"1"),))
    )


@pytest.mark.parametrize("media_type", [None, "", "text/plain", "image/jpeg", "application/octet-stream"])
def test_a_body_of_any_type_but_json_is_an_image(media_type: str | None) -> None:
    assert asked(parts=(Part("body", b"1", media_type),)) == EmbedRequest((b"1",))


@pytest.mark.parametrize("count", [MAX_FIELDS + 1, 100_000])
def test_too_many_fields_are_refused(count: int) -> None:
    for query, parts in [(count, 0), (0, count), (count - 100, 100)]:
        with pytest.raises(RequestError, match="at most 256") as caught:
            asked(*[("a", "")] * query, parts=(text("a", ""),) * parts)
        assert caught.value.status == 413
