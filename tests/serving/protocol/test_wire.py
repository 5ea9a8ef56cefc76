import base64
import io
import json
from typing import Any

import numpy as np
import pytest

from core.images.decode import ImageError, ImageFormatUnknown
from serving.collection.catalogue.filters import OneOf
from serving.protocol.messages import Answer, Picture, RequestError
from serving.protocol.wire import JSON, NPY, RAW, encode, parse

PICTURE = b"\x89PNG and so on"
TEXT = base64.b64encode(PICTURE).decode()


def json_body(content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"body": bytearray(json.dumps(content).encode())}, {"body": {"content-type": JSON}}


def test_a_raw_body_is_one_image_to_embed() -> None:
    request, accept = parse({"body": bytearray(PICTURE)}, {"body": {"content-type": "image/png"}})
    assert (request.op, request.images, accept) == ("embed", (PICTURE,), JSON)


def test_multipart_fields_are_options_and_images() -> None:
    fields = {"image": bytearray(PICTURE), "second": bytearray(b"other"), "op": bytearray(b"search"), "k": b"3"}
    request, _ = parse(fields, {name: {"content-type": "image/png"} for name in ("image", "second")})
    assert (request.op, request.k, request.images) == ("search", 3, (PICTURE, b"other"))


@pytest.mark.parametrize("image", [TEXT, f"data:image/png;base64,{TEXT}"])
def test_json_carries_base64_and_data_uris(image: str) -> None:
    request, _ = parse(*json_body({"op": "classify", "image": image, "images": [image]}))
    assert (request.op, request.images) == ("classify", (PICTURE, PICTURE))


def test_json_that_torchserve_decoded_already_reads_the_same() -> None:
    assert parse({"body": {"op": "search", "id": "a", "k": 2}}, {})[0].ids == ("a",)


def test_search_takes_ids_and_vectors() -> None:
    request, _ = parse(*json_body({"op": "search", "id": "a", "ids": ["b"], "vector": [1, 2], "vectors": [[3, 4.5]]}))
    assert request.ids == ("a", "b")
    assert [vector.tolist() for vector in request.vectors] == [[1, 2], [3, 4.5]]


def test_the_query_goes_before_the_body_and_the_path_comes_last() -> None:
    fields, headers = json_body({"op": "classify"})
    assert parse(fields | {"op": b"search"}, headers)[0].op == "search"
    assert parse(fields, headers | {"url_path": "search"})[0].op == "classify"
    assert parse({}, {"url_path": "search"})[0].op == "search"


@pytest.mark.parametrize(
    ("header", "accept"),
    [("", JSON), ("*/*", JSON), ("application/x-npy", NPY), ("text/html, application/octet-stream;q=0.9", RAW)],
)
def test_accept(header: str, accept: str) -> None:
    assert parse({}, {"Accept": header})[1] == accept
    assert parse({}, {"accept": header})[1] == accept


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"opp": 1}, "unknown field `opp`"),
        ({"k": "ten"}, r"Expected `int \| null`, got `str` - at `\$.k`"),
        ({"op": "train"}, "op is 'train'; it must be one of embed"),
        ({"image": "no base64!"}, "image 0 is no valid base64"),
        ({"image": "data:image/png,abc"}, "without ';base64,'"),
        ({"vector": ["a"]}, "Expected `float`"),
        ([1, 2], "Expected `object`"),
    ],
)
def test_bad_json_is_told_what_is_wrong(content: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(*json_body(content))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "headers", "status", "message"),
    [
        ({"body": bytearray(b'{"op": ')}, {"body": {"content-type": JSON}}, 400, "can't be read"),
        ({"body": bytearray(b"\xff\xfe")}, {"body": {"content-type": JSON}}, 400, "can't be read"),
        ({"k": b"many"}, {}, 400, "k is 'many'"),
        ({"op": b"\xff"}, {}, 400, "op must be text"),
        ({"image": "text"}, {"image": {"content-type": "text/plain"}}, 400, "field 'image' is text"),
        ({"kk": b"5"}, {"kk": {"content-type": ""}}, 400, "'kk' is no option; the options are op, id, label"),
        ({}, {"accept": "text/html"}, 406, "Accept is 'text/html'"),
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
    return Answer("embed", "digits/1", results)


def test_numbers_survive_every_encoding() -> None:
    numbers = np.random.default_rng(0).normal(size=(2, 33)).astype(np.float32)
    answer = embedded(*numbers.tolist())
    as_json = [result["embedding"] for result in json.loads(encode(answer).body)["results"]]
    assert (np.asarray(as_json, np.float32) == numbers).all()
    assert (np.load(io.BytesIO(encode(answer, NPY).body), allow_pickle=False) == numbers).all()
    raw = encode(answer, RAW)
    assert raw.headers == {"x-release": "digits/1", "x-shape": "2,33", "x-dtype": "float32"}
    assert (np.frombuffer(raw.body, "<f4").reshape(2, 33) == numbers).all()


def test_one_bad_image_of_several_is_told_in_its_place() -> None:
    reply = encode(embedded([1.0], ImageError("broken")))
    assert reply.status == 200
    assert json.loads(reply.body)["results"][1] == {"error": {"status": 422, "message": "broken"}}


def test_a_failure_that_leaves_nothing_is_the_reply() -> None:
    assert encode(embedded(ImageFormatUnknown("no image"))).status == 415
    assert encode(embedded([1.0], ImageError("broken")), NPY).status == 422
    assert encode(Answer("search", "digits/1", [{"neighbours": []}]), NPY).status == 406


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
def test_the_encoding_comes_by_option_or_accept(fields: dict[str, Any], headers: dict[str, Any], encoding: str) -> None:
    request, _ = parse(fields | {"body": bytearray(PICTURE)}, headers | {"body": {"content-type": "image/png"}})
    assert request.encoding == encoding


def test_the_encoding_comes_by_json() -> None:
    assert parse(*json_body({"image": TEXT, "encoding_format": "float16"}))[0].encoding == "float16"


def test_an_unknown_encoding_and_one_for_a_search_are_refused() -> None:
    with pytest.raises(RequestError, match="encoding_format is 'fp4'; it must be one of float, base64"):
        parse(*json_body({"image": TEXT, "encoding_format": "fp4"}))
    with pytest.raises(RequestError, match="search replies without embeddings"):
        parse(*json_body({"op": "search", "image": TEXT, "encoding_format": "int8"}))


def test_base64_is_float32_as_openai_sends_it() -> None:
    reply = json.loads(encode(Answer("embed", "r/1", list(VECTORS), "base64")).body)
    assert reply["encoding_format"] == "base64"
    found = [np.frombuffer(base64.b64decode(result["embedding"]), "<f4") for result in reply["results"]]
    assert (np.stack(found) == np.stack([result["embedding"] for result in VECTORS])).all()


def test_int8_in_json_has_its_scale() -> None:
    reply = json.loads(encode(Answer("embed", "r/1", list(VECTORS), "int8")).body)
    for result, wanted in zip(reply["results"], VECTORS, strict=True):
        values = np.frombuffer(base64.b64decode(result["embedding"]), np.int8) * result["scale"]
        np.testing.assert_allclose(values, wanted["embedding"], atol=result["scale"] / 2 + 1e-7)


@pytest.mark.parametrize(
    ("encoding", "dtype", "width"), [("float16", "<f2", 3), ("int8", "i1", 3), ("binary", "u1", 1)]
)
def test_raw_and_npy_carry_every_encoding(encoding: Any, dtype: str, width: int) -> None:
    answer = Answer("embed", "r/1", list(VECTORS), encoding, MEDIANS)
    raw, npy = encode(answer, RAW), encode(answer, NPY)
    assert raw.headers["x-shape"] == f"2,{width}"
    assert raw.headers["x-dtype"] == np.dtype(dtype).name
    found = np.load(io.BytesIO(npy.body), allow_pickle=False)
    assert (np.frombuffer(raw.body, dtype).reshape(2, width) == found).all()
    if encoding == "binary":
        assert found.tolist() == [[0b11000000], [0b00100000]]


def test_an_upsert_comes_as_a_raw_body_a_form_or_json() -> None:
    said = {"id": "a", "label": "cat", "metadata": {"n": 1}}
    raw = {"op": b"upsert", "id": b"a", "label": b"cat", "metadata": b'{"n": 1}', "body": bytearray(PICTURE)}
    form = {"op": b"upsert", "items": json.dumps([said | {"image": "one"}]).encode(), "one": bytearray(PICTURE)}
    requests = [
        parse(raw, {"body": {"content-type": "image/png"}})[0],
        parse(form, {"one": {"content-type": "image/png"}})[0],
        parse(*json_body({"op": "upsert", "items": [said | {"image": TEXT}]}))[0],
        parse(*json_body({"op": "upsert", "image": TEXT} | said))[0],
    ]
    for request in requests:
        (item,) = request.items
        assert (item.id, item.image, item.label, item.metadata) == ("a", PICTURE, "cat", {"n": 1})
        assert (request.images, request.ids) == ((), ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"op": "upsert", "image": TEXT}, "upsert needs an id"),
        ({"op": "upsert", "id": "a", "images": [TEXT, TEXT]}, "takes one image, not 2"),
        ({"op": "upsert", "id": "a"}, "takes one image, not 0"),
        ({"op": "upsert", "items": [{"id": "a"}]}, "missing required field `image`"),
        ({"op": "upsert", "items": [{"id": "a", "image": "?"}]}, "the image of item 'a' is no valid base64"),
        ({"op": "upsert", "label": "x", "items": [{"id": "a", "image": TEXT}]}, "give each item its own"),
        ({"op": "search", "negatives": ["a"]}, "negatives without positives"),
        ({"op": "search", "positives": [{"id": "a", "vector": [1]}]}, "positive 0 has 2 of id, image and vector"),
        ({"op": "search", "id": "a", "filter": {"price": {"near": 3}}}, "filter key 'price' has 'near'; accepted: in"),
        ({"op": "search", "id": "a", "include": ["smell"]}, "include has 'smell'; accepted: metadata, vector"),
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
    assert (request.offset, request.min_score, request.exact, request.group_by) == (3, 0.5, True, "label")
    assert request.include == {"vector", "vote"}
    assert request.where == OneOf("label", ("x",))
    for name, wrong in {"exact": b"maybe", "min_score": b"high", "filter": b"{", "metadata": b"[]"}.items():
        with pytest.raises(RequestError, match=f"{name}.* (must be|can't be read)"):
            parse(fields | {name: wrong}, {})


def test_examples_are_ids_images_and_vectors() -> None:
    positives = ["a", {"id": "b"}, {"image": TEXT}, {"vector": [1, 2]}]
    mix = parse(*json_body({"op": "search", "positives": positives, "negatives": ["c"]}))[0].mix
    assert mix is not None
    *texts, vector = mix.positives
    assert (texts, mix.negatives) == (["a", "b", PICTURE], ("c",))
    assert isinstance(vector, np.ndarray)


def test_a_picture_is_asked_for_by_accept() -> None:
    for header in ("image/*", "image/avif,image/webp,*/*;q=0.8"):
        request, accept = parse({"op": b"get", "id": b"a"}, {"accept": header})
        assert accept == "image/*"
        assert request.include == {"image"}
    assert parse({}, {"accept": "text/html,image/avif,*/*"})[1] == JSON
    picture = Picture(PICTURE, "image/png")
    answer = Answer("get", "r/1", [{"id": "a", "image": picture}])
    reply = encode(answer, "image/*")
    assert (reply.status, reply.body, reply.content_type) == (200, PICTURE, "image/png")
    assert json.loads(encode(answer).body)["results"][0]["image"] == TEXT
    assert encode(Answer("count", "r/1", more={"count": 3}), "image/*").status == 406
    assert json.loads(encode(Answer("count", "r/1", more={"count": 3})).body) == {"release": "r/1", "count": 3}
