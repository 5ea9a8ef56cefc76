import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET

from core.images.decode import ImageError, ImageFormatUnknown
from serving.protocol.media_types import JSON, NPY, PICTURE, RAW, MediaType
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.operations import (
    OPERATIONS,
    ClassifyRequest,
    EmbedRequest,
    Example,
    GetRequest,
    ItemChange,
    NewItem,
    Request,
    SearchRequest,
    SnapshotRequest,
    UpdateRequest,
    UpsertRequest,
)
from serving.protocol.wire import encode
from serving.protocol.wire import parse as parse_parts
from serving.torchserve.parameters import parts_of, plain_headers

IMAGE = b"\x89PNG and so on"
TEXT = base64.b64encode(IMAGE).decode()


def parse(fields: dict[str, Any], headers: dict[str, Any], path: str = "") -> tuple[Request, MediaType]:
    """As TorchServe hands over a request: fields by name, and per field a dictionary with its content type."""
    return parse_parts((), parts_of(fields, headers), headers=plain_headers(headers), path=path)


def json_body(content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"body": bytearray(json.dumps(content).encode())}, {"body": {"content-type": JSON}}


def asked(content: Any) -> Request:
    return parse(*json_body(content))[0]


def test_a_raw_body_is_one_image_to_embed() -> None:
    request, media_type = parse({"body": bytearray(IMAGE)}, {"body": {"content-type": "image/png"}})
    assert (request, media_type) == (EmbedRequest((IMAGE,)), JSON)


def test_multipart_fields_are_options_and_images() -> None:
    fields = {"image": bytearray(IMAGE), "second": bytearray(b"other"), "op": bytearray(b"search"), "k": b"3"}
    request, _ = parse(fields, {name: {"content-type": "image/png"} for name in ("image", "second")})
    assert request == SearchRequest((IMAGE, b"other"), k=3)


def test_what_changes_something_must_be_posted() -> None:
    for name, operation in OPERATIONS.items():
        with pytest.raises(RequestError) as caught:
            parse_parts([("op", name), ("kk", "5")], (), headers={}, posted=False)
        assert caught.value.status == (405 if operation.changes else 400)
        assert encode(caught.value).headers == ({"allow": "POST"} if operation.changes else {})


WRAPPED = base64.encodebytes(IMAGE * 20).decode()  # with a line break every 76 characters, as `base64` writes it


@pytest.mark.parametrize("image", [WRAPPED, f" data:image/png;base64,\r\n{WRAPPED}", WRAPPED.replace("\n", "\r\n\t ")])
def test_base64_may_have_line_breaks_and_white_space(image: str) -> None:
    assert asked({"image": image}) == EmbedRequest((IMAGE * 20,))


@pytest.mark.parametrize("image", [TEXT, f"data:image/png;base64,{TEXT}"])
def test_json_carries_base64_and_data_uris(image: str) -> None:
    assert asked({"op": "classify", "image": image, "images": [image]}) == ClassifyRequest((IMAGE, IMAGE))


def test_json_that_torchserve_decoded_already_reads_the_same() -> None:
    assert parse({"body": {"op": "search", "id": "a", "k": 2}}, {})[0] == SearchRequest(ids=("a",), k=2)


def test_search_takes_ids_and_vectors() -> None:
    request = asked({"op": "search", "id": "a", "ids": ["b"], "vector": [1, 2], "vectors": [[3, 4.5]]})
    assert request == SearchRequest(ids=("a", "b"), vectors=([1.0, 2.0], [3.0, 4.5]))


def test_the_query_goes_before_the_body_and_the_path_comes_last() -> None:
    fields, headers = json_body({"op": "count"})
    assert parse(fields | {"op": b"stats"}, headers)[0].op == "stats"
    assert parse(fields, headers, "stats")[0].op == "count"
    assert parse({}, {}, "/stats")[0].op == "stats"


@pytest.mark.parametrize(
    ("header", "media_type"),
    [("", JSON), ("*/*", JSON), ("application/x-npy", NPY), ("text/html, application/octet-stream;q=0.9", RAW)],
)
def test_the_media_type_of_the_reply_comes_by_accept(header: str, media_type: str) -> None:
    fields = {"body": bytearray(IMAGE)}
    assert parse(fields, {"Accept": header})[1] == media_type
    assert parse(fields, {"accept": header})[1] == media_type


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"opp": 1}, "'opp' is no option of embed; it takes image, images, encoding_format"),
        ({"op": "describe", "opp": 1}, "'opp' is no option of describe; it takes none"),
        ({"op": "train"}, "op is 'train'; it must be one of embed"),
        ({"op": 3}, "op is 3; it must be one of embed"),
        ({"image": "no base64!"}, "image 0 is not valid base64"),
        ({"image": "http://example.org/cat.jpg"}, "image 0 is 'http://example.org/cat.jpg', an address, and none"),
        ({"image": "data:image/png,abc"}, "without ';base64,'"),
        ({"image": 3}, "image can't be read: Expected `str`"),
        ({"images": TEXT}, "images can't be read: Expected `array`"),
        ({"op": "search", "k": "ten"}, "k is 'ten'; it must be a whole number from 1 to 1000"),
        ({"op": "search", "ids": ["a"], "k": 0}, "k is 0; it must be a whole number from 1 to 1000"),
        ({"op": "search", "ids": ["a"], "offset": -1}, "offset is -1; it must be a whole number from 0 to 10000"),
        ({"op": "search", "ids": ["a"], "min_score": 1.5}, "min_score is 1.5; it must be a number from -1 to 1"),
        ({"op": "search", "ids": ["a"], "exact": "yes"}, "exact is 'yes'; it must be true or false"),
        ({"op": "search", "ids": ["a"], "group_by": 3}, "group_by is 3; it must be text"),
        ({"op": "search", "id": 3}, "id can't be read: Expected `str`"),
        ({"op": "search", "ids": ["a", 3]}, r"ids can't be read: Expected `str`, got `int` - at `\$.ids\[1\]`"),
        ({"op": "search", "ids": "a"}, "ids is 'a'; it must be a list"),
        ({"op": "search", "vector": ["a"]}, "vector can't be read: Expected `float`"),
        ({"op": "search", "positives": "a"}, "positives is 'a'; it must be a list"),
        ({"op": "list", "limit": 0}, "limit is 0; it must be a whole number from 1 to 1000"),
        ({"op": "list", "include": ["image"]}, "include has 'image'; list accepts metadata, thumbnail, vector there"),
        ({"op": "embed"}, "embed needs at least one image"),
        ({"op": "get"}, "get needs at least one id"),
        ({"op": "get", "ids": []}, "get needs at least one id"),
        ({"op": "snapshot"}, "snapshot needs a name"),
        ({"op": "restore", "name": ""}, "restore needs a name"),
        ([1, 2], "Expected `object`"),
    ],
)
def test_of_bad_json_the_error_says_what_is_wrong(content: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        asked(content)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"image": TEXT, "filter": {"label": "x"}},
            "filter; it is for search, delete, list, count, facets, sample, duplicates",
        ),
        ({"image": TEXT, "ids": ["a"]}, "embed takes no ids; they are for search, delete, get"),
        ({"image": TEXT, "k": 3}, "embed takes no k; it is for search"),
        ({"op": "search", "id": "a", "label": "x"}, "search takes no label; it is for upsert"),
        ({"op": "get", "id": "a", "image": TEXT}, "get takes no image; it is for embed, classify, search, upsert"),
        ({"op": "count", "group_by": "label"}, "count takes no group_by; it is for search"),
        (
            {"op": "count", "include": ["drift"]},
            "count takes no include; it is for embed, classify, search, get, list, sample, stats",
        ),
        ({"op": "count", "name": "x"}, "count takes no name; it is for snapshot, restore, remove_snapshot"),
        ({"op": "snapshot", "name": "x", "replace": True}, "snapshot takes no replace; it is for restore"),
        ({"op": "snapshots", "name": "x"}, "snapshots takes no name"),
        (
            {"op": "search", "image": TEXT, "encoding_format": "int8"},
            "takes no encoding_format; it is for embed",
        ),
    ],
)
def test_what_an_operation_does_not_take_is_refused(content: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        asked(content)


def test_files_that_an_operation_does_not_take_are_refused() -> None:
    with pytest.raises(RequestError, match="snapshot takes no images; they are for embed, classify, search, upsert"):
        parse({"op": b"snapshot", "name": b"x", "body": bytearray(IMAGE)}, {"body": {"content-type": "image/png"}})


def test_what_asks_for_nothing_may_stand_anywhere() -> None:
    nothing: dict[str, Any] = {"filter": None, "ids": [], "include": [], "k": 10, "exact": False}
    for op in ("count", "stats"):
        assert asked({"op": op, "encoding_format": "float", **nothing}).op == op
    assert asked({"op": "search", "id": "a", "k": None, "filter": None}) == SearchRequest(ids=("a",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [TEXT] * 65}, "65 images in one request; at most 64"),
        ({"op": "get", "ids": ["a"] * 1001}, "1001 ids in one request; at most 1000"),
        ({"op": "upsert", "items": [{"id": "a", "image": TEXT}] * 65}, "65 items in one request; at most 64"),
    ],
)
def test_too_many_are_refused(content: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        asked(content)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("fields", "headers", "status", "message"),
    [
        ({"body": bytearray(b'{"op": ')}, {"body": {"content-type": JSON}}, 400, "can't be read"),
        ({"body": bytearray(b"\xff\xfe")}, {"body": {"content-type": JSON}}, 400, "can't be read"),
        ({"op": b"search", "k": b"many"}, {}, 400, "k is 'many'; it must be a whole number"),
        ({"op": b"\xff"}, {}, 400, "op must be text"),
        ({"image": "text"}, {"image": {"content-type": "text/plain"}}, 400, "field 'image' is text"),
        ({"image": "text"}, {}, 400, "field 'image' is text; send an image as a file"),
        ({"kk": b"5"}, {"kk": {"content-type": ""}}, 400, "'kk' is no option of embed"),
        ({"op": b"count"}, {"accept": "text/html"}, 406, "Accept is 'text/html'; the reply to count comes as applica"),
        ({"op": b"search", "id": b"a"}, {"accept": NPY}, 406, "the reply to search comes as application/json"),
        ({"op": b"count"}, {"accept": PICTURE}, 406, "the reply to count comes as application/json"),
        ({"op": b"get", "ids": b'["a", "b"]'}, {"accept": PICTURE}, 406, "a picture is the reply to get with one id"),
    ],
)
def test_bad_requests(fields: dict[str, Any], headers: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(fields, headers)
    assert caught.value.status == status


def embedded(*vectors: Any) -> Answer:
    results = [
        {"embedding": np.asarray(vector, np.float32)} if isinstance(vector, list) else vector for vector in vectors
    ]
    return Answer("digits/1", results)


def test_numbers_survive_every_encoding() -> None:
    numbers = np.random.default_rng(0).normal(size=(2, 33)).astype(np.float32)
    answer = embedded(*numbers.tolist())
    as_json = [result["embedding"] for result in json.loads(encode(answer).body)["results"]]
    assert (np.asarray(as_json, np.float32) == numbers).all()
    assert (np.load(io.BytesIO(encode(answer, NPY).body), allow_pickle=False) == numbers).all()
    raw = encode(answer, RAW)
    assert raw.headers == {"x-release": "digits/1", "x-shape": "2,33", "x-dtype": "float32"}
    assert (np.frombuffer(raw.body, "<f4").reshape(2, 33) == numbers).all()


def test_one_bad_image_of_several_fails_in_its_place() -> None:
    reply = encode(embedded([1.0], ImageError("broken")))
    assert reply.status == 200
    assert json.loads(reply.body)["results"][1] == {"error": {"status": 422, "message": "broken"}}


def test_a_failure_that_leaves_nothing_is_the_reply() -> None:
    assert encode(embedded(ImageFormatUnknown("no image"))).status == 415
    assert encode(embedded([1.0], ImageError("broken")), NPY).status == 422


VECTORS = [{"embedding": np.array(row, np.float32)} for row in ([0.6, 0.8, 0.0], [0.0, 0.28, 0.96])]
MEDIANS = np.array([0.1, 0.5, 0.5], np.float32)


@pytest.mark.parametrize(
    ("fields", "headers", "encoding"),
    [
        ({}, {}, "float"),
        ({"encoding_format": b"base64"}, {}, "base64"),
        ({}, {"accept": "application/octet-stream; encoding_format=int8"}, "int8"),
        ({"encoding_format": b"binary"}, {"accept": "application/x-npy;encoding_format=int8"}, "binary"),
    ],
)
def test_the_encoding_comes_by_option_or_accept(fields: dict[str, Any], headers: dict[str, Any], encoding: Any) -> None:
    request, _ = parse(fields | {"body": bytearray(IMAGE)}, headers | {"body": {"content-type": "image/png"}})
    assert request == EmbedRequest((IMAGE,), encoding)


def test_the_encoding_comes_by_json() -> None:
    assert asked({"image": TEXT, "encoding_format": "float16"}) == EmbedRequest((IMAGE,), "float16")


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(RequestError, match="encoding_format is 'fp4'; it must be one of base64, binary, float"):
        asked({"image": TEXT, "encoding_format": "fp4"})


def test_base64_is_float32_as_openai_sends_it() -> None:
    reply = json.loads(encode(Answer("r/1", list(VECTORS), "base64")).body)
    assert reply["encoding_format"] == "base64"
    found = [np.frombuffer(base64.b64decode(result["embedding"]), "<f4") for result in reply["results"]]
    assert (np.stack(found) == np.stack([result["embedding"] for result in VECTORS])).all()


def test_int8_in_json_has_its_scale() -> None:
    reply = json.loads(encode(Answer("r/1", list(VECTORS), "int8")).body)
    for result, wanted in zip(reply["results"], VECTORS, strict=True):
        values = np.frombuffer(base64.b64decode(result["embedding"]), np.int8) * result["scale"]
        np.testing.assert_allclose(values, wanted["embedding"], atol=result["scale"] / 2 + 1e-7)


@pytest.mark.parametrize(
    ("encoding", "dtype", "width"), [("float16", "<f2", 3), ("int8", "i1", 3), ("binary", "u1", 1)]
)
def test_raw_and_npy_carry_every_encoding(encoding: Any, dtype: str, width: int) -> None:
    answer = Answer("r/1", list(VECTORS), encoding, MEDIANS)
    raw, npy = encode(answer, RAW), encode(answer, NPY)
    assert raw.headers["x-shape"] == f"2,{width}"
    assert raw.headers["x-dtype"] == np.dtype(dtype).name
    found = np.load(io.BytesIO(npy.body), allow_pickle=False)
    assert (np.frombuffer(raw.body, dtype).reshape(2, width) == found).all()
    if encoding == "binary":
        assert found.tolist() == [[0b11000000], [0b00100000]]


def test_an_upsert_comes_as_a_raw_body_a_form_or_json() -> None:
    said = {"id": "a", "label": "cat", "metadata": {"n": 1}}
    raw = {"op": b"upsert", "id": b"a", "label": b"cat", "metadata": b'{"n": 1}', "body": bytearray(IMAGE)}
    form = {"op": b"upsert", "items": json.dumps([said | {"image": "one"}]).encode(), "one": bytearray(IMAGE)}
    requests = [
        parse(raw, {"body": {"content-type": "image/png"}})[0],
        parse(form, {"one": {"content-type": "image/png"}})[0],
        parse(*json_body({"op": "upsert", "items": [said | {"image": TEXT}]}))[0],
        parse(*json_body({"op": "upsert", "image": TEXT} | said))[0],
    ]
    for request in requests:
        assert request == UpsertRequest((NewItem("a", IMAGE, "cat", {"n": 1}),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"op": "upsert", "image": TEXT}, "upsert needs an id"),
        ({"op": "upsert", "id": "a", "images": [TEXT, TEXT]}, "takes one image, not 2"),
        ({"op": "upsert", "id": "a"}, "takes one image, not 0"),
        ({"op": "upsert", "items": [{"id": "a"}]}, "missing required field `image`"),
        ({"op": "upsert", "items": [{"id": "a", "image": "?"}]}, "the image of item 'a' is not valid base64"),
        ({"op": "upsert", "label": "x", "items": [{"id": "a", "image": TEXT}]}, "give each item its own"),
        ({"op": "upsert", "image": TEXT, "items": [{"id": "a", "image": TEXT}]}, "an image of an upsert that no item"),
        ({"op": "upsert", "items": {"id": "a"}}, "items is .*; it must be a list"),
        ({"op": "upsert", "id": "a", "image": TEXT, "metadata": []}, "metadata can't be read: Expected `object`"),
        ({"op": "search", "positives": [{"image": "?"}]}, "positive 0 is not valid base64"),
        (
            {"op": "search", "id": "a", "include": ["smell"]},
            "include has 'smell'; search accepts metadata, thumbnail, v",
        ),
    ],
)
def test_bad_requests_to_a_collection(content: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(*json_body(content))
    assert caught.value.status == 400


def test_options_of_a_query_are_read_by_their_type() -> None:
    fields = {
        "op": b"search",
        "id": b"a",
        "offset": b"3",
        "min_score": b"0.5",
        "exact": b"true",
        "include": b"vector, vote",
    }
    request, _ = parse(fields | {"filter": b'{"label": "x"}', "group_by": b"label"}, {})
    assert request == SearchRequest(
        ids=("a",),
        offset=3,
        min_score=0.5,
        exact=True,
        group_by="label",
        filter={"label": "x"},
        include=frozenset(["vector", "vote"]),
    )
    for name, wrong in {"exact": b"maybe", "min_score": b"high", "filter": b"{", "ids": b"[", "include": b"x"}.items():
        with pytest.raises(RequestError, match=f"{name}.* (must be|can't be read|accepts)"):
            parse(fields | {name: wrong}, {})
    assert parse({"op": b"snapshot", "name": b"5"}, {})[0] == SnapshotRequest("5")


def test_examples_are_ids_images_and_vectors() -> None:
    positives = ["a", {"id": "b"}, {"image": TEXT}, {"vector": [1, 2]}]
    request = asked({"op": "search", "positives": positives, "negatives": ["c"]})
    assert isinstance(request, SearchRequest)
    assert request.examples == (
        Example(id="a"),
        Example(id="b"),
        Example(image=IMAGE),
        Example(vector=[1.0, 2.0]),
        Example(id="c"),
    )


def test_a_file_may_be_an_example() -> None:
    fields = {"op": b"search", "positives": b'[{"image": "mine"}]', "mine": bytearray(IMAGE), "other": bytearray(b"x")}
    request, _ = parse(fields, {name: {"content-type": "image/png"} for name in ("mine", "other")})
    assert request == SearchRequest((b"x",), positives=(Example(image=IMAGE),))


def test_a_picture_is_asked_for_by_accept() -> None:
    fields = {"op": b"get", "id": b"a"}
    for header in ("image/*", "image/avif,image/webp,*/*;q=0.8"):
        request, media_type = parse(fields, {"accept": header})
        assert (request, media_type) == (GetRequest(("a",), frozenset(["image"])), PICTURE)
    small, _ = parse(fields | {"include": b"thumbnail"}, {"accept": PICTURE})
    assert small == GetRequest(("a",), frozenset(["thumbnail"]))
    assert parse(fields, {"accept": "text/html,image/avif,*/*"}) == (GetRequest(("a",)), JSON)
    answer = Answer("r/1", [{"id": "a", "image": Picture(IMAGE, "image/png")}])
    reply = encode(answer, PICTURE)
    assert (reply.status, reply.body, reply.content_type) == (200, IMAGE, "image/png")
    assert json.loads(encode(answer).body)["results"][0]["image"] == TEXT
    assert json.loads(encode(Answer("r/1", more={"count": 3})).body) == {"release": "r/1", "count": 3}


def test_an_update_tells_what_is_absent_from_what_is_null() -> None:
    items = [{"id": "a", "label": None}, {"id": "b", "metadata": {"x": None}}, {"id": "c", "label": "cat"}]
    changes = (ItemChange("a", None), ItemChange("b", UNSET, {"x": None}), ItemChange("c", "cat", UNSET))
    assert asked({"op": "update", "items": items}) == UpdateRequest(changes)
    assert asked({"op": "update", "items": items, "replace_metadata": True}) == UpdateRequest(changes, True)


@pytest.mark.parametrize(
    ("said", "message", "status"),
    [
        ({}, "update needs at least one item", 400),
        ({"items": []}, "update needs at least one item", 400),
        ({"items": [{"label": "x"}]}, "items can't be read: Object missing required field `id`", 400),
        ({"items": [{"id": "a", "metadata": None}]}, "items can't be read: Expected `object`, got `null`", 400),
        ({"items": [{"id": "a", "image": TEXT}]}, "items can't be read: Object contains unknown field `image`", 400),
        ({"items": [{"id": f"{n}"} for n in range(1001)]}, "1001 items in one request; at most 1000", 413),
        ({"items": [{"id": "a"}], "label": "x"}, "update takes no label; it is for upsert", 400),
    ],
)
def test_an_update_that_can_not_be_read(said: dict[str, Any], message: str, status: int) -> None:
    with pytest.raises(RequestError, match=message) as failure:
        asked({"op": "update", **said})
    assert failure.value.status == status


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"op": "facets"}, "facets needs at least one key"),
        ({"op": "facets", "keys": [f"{n}" for n in range(17)]}, "17 keys in one request; at most 16"),
        ({"op": "facets", "key": "a", "limit": 0}, "limit is 0; it must be a whole number from 1 to 1000"),
        ({"op": "sample", "count": 257}, "count is 257; it must be a whole number from 1 to 256"),
        ({"op": "sample", "seed": -1}, "seed is -1; it must be a whole number from 0 to 9007199254740991"),
    ],
)
def test_facets_and_samples_that_can_not_be_read(said: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        asked(said)


def test_every_operation_can_be_asked_for_by_name() -> None:
    for name, operation in OPERATIONS.items():
        needed: dict[str, Any] = {"image": TEXT} if name in ("embed", "classify") else {}
        needed |= {"id": "a"} if name in ("search", "get") else {}
        needed |= {"id": "a", "image": TEXT} if name == "upsert" else {}
        needed |= {"items": [{"id": "a"}]} if name == "update" else {}
        needed |= {"key": "label"} if name == "facets" else {}
        needed |= {"name": "a"} if name in ("snapshot", "restore", "remove_snapshot") else {}
        assert type(asked({"op": name, **needed})) is operation.request


def test_logits_stand_beside_an_embedding_in_every_encoding() -> None:
    result = {"embedding": np.array([0.6, 0.8], np.float32), "logits": np.array([1.5, -2], np.float32)}
    for encoding in ("float", "base64", "int8"):
        (written,) = json.loads(encode(Answer("digits/1", [result], encoding)).body)["results"]
        assert written["logits"] == [1.5, -2]
