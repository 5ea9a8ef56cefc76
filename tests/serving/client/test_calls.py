"""What the client's calls are made of: bodies and paths."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from serving.client.calls import form_body, json_body, segment
from serving.client.operations import search, update
from tests.sent import sent_body


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"a": "ü"}, {"a": "ü"}),
        ({"v": b"[1.5]"}, {"v": [1.5]}),
        ({"v": b"[]", "a": None, "w": b'"x"'}, {"a": None, "v": [], "w": "x"}),
    ],
)
def test_bytes_are_json_already(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.loads(json_body(options)["content"]) == expected


def test_a_form_has_its_files_in_their_order_and_the_options_as_json() -> None:
    files = [("image", b"one"), ("other", b""), ("image", b"two\r\n--")]
    request = httpx.Request("POST", "http://near", **form_body(files, {"k": 3, "filter": {"label": None}}))
    request.read()
    body = sent_body(request)
    assert body.said == {"k": 3, "filter": {"label": None}}
    assert body.files == [("image", b"one"), ("image", b"two\r\n--")]
    assert form_body([], {"k": 3}) == json_body({"k": 3})


def test_numbers_that_are_not_finite_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="a vector has a number that is not finite: nan"):
        next(search(vectors=np.full((1, 4), np.nan, np.float32)))
    with pytest.raises(ValueError, match="not JSON compliant"):
        next(update([{"id": "cat", "metadata": {"year": float("inf")}}]))


def test_vectors_keep_every_bit() -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    call = next(search(vectors=vectors, positives=[{"vector": vectors[1]}]))
    said = json.loads(call.content["content"])
    np.testing.assert_array_equal(np.array(said["vectors"], np.float32), vectors)
    np.testing.assert_array_equal(np.array(said["positives"][0]["vector"], np.float32), vectors[1])


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "ü b", "%2F"])
def test_a_name_stays_one_segment_of_a_path(name: str) -> None:
    url = httpx.Client(base_url="http://near").build_request("GET", f"/v1/collections/{segment(name)}/count").url
    assert url.raw_path.decode() == f"/v1/collections/{segment(name)}/count"
    assert url.path == f"/v1/collections/{name}/count"
