import json
from typing import Any

import pytest

from serving.collection.catalogue.metadata import encode_metadata, terms_of
from serving.collection.errors import ItemError


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


def test_it_is_kept_as_json_whatever_the_order_of_keys() -> None:
    metadata = {"b": [1, 2.5, None, True, "é"], "a": {"c": "x"}}
    assert json.loads(encode_metadata(metadata)) == metadata
    assert encode_metadata(metadata) == encode_metadata(dict(reversed(metadata.items())))


def test_every_scalar_is_a_term_nested_keys_joined_by_dots_and_lists_spread() -> None:
    metadata = {
        "camera": {"make": "X", "lens": [{"f": 1.8}, {"f": 4}]},
        "tags": ["a", ["b"], "a"],
        "none": [],
        "no": {},
    }
    assert terms_of(metadata) == {
        ("camera.make", "X"),
        ("camera.lens.f", 1.8),
        ("camera.lens.f", 4),
        ("tags", "a"),
        ("tags", "b"),
    }


def test_booleans_and_null_are_terms_of_their_own_and_equal_numbers_are_one() -> None:
    assert len(terms_of({"x": [True, 1, 1.0, False, 0, None, "1", ""]})) == 7


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([], r"metadata is \[\]; it must be a JSON object"),
        ({"label": "x"}, "metadata key 'label' is reserved"),
        ({"media_type": "x"}, "'media_type' is reserved"),
        ({"or": 1}, "'or' is reserved"),
        ({"": 1}, "a key of metadata is empty"),
        ({"a": {"b\n": 1}}, "a key of metadata.a is"),
        ({1: 2}, "a key of metadata is 1; it must be text"),
        ({"k" * 257: 1}, "at most 256"),
        ({"a": float("nan")}, "metadata.a is nan; numbers must be finite"),
        ({"a": 2**63}, "integers must fit 64 bits"),
        ({"a": [{"b": b"x"}]}, r"metadata.a.b is b'x'; a text, number, boolean or null is accepted"),
        ({"a": "\ud800"}, "lone surrogate"),
        (nested(9), "nested more than 8 deep"),
        ({"a": "x" * 65_536}, "takes 65544 bytes as JSON; at most 65536"),
        ({"a": list(range(1_001))}, "has 1001 different values; at most 1000"),
    ],
)
def test_what_is_not_accepted_is_named(metadata: Any, said: str) -> None:
    with pytest.raises(ItemError, match=said):
        encode_metadata(metadata)


def test_it_is_accepted_up_to_its_limits() -> None:
    for metadata in (nested(8), {"a": 2**63 - 1, "b": -(2**63)}, {"a": "x" * 65_528}, {"a": list(range(1_000))}):
        assert json.loads(encode_metadata(metadata)) == metadata


def test_a_reserved_name_below_the_top_is_an_ordinary_key() -> None:
    assert terms_of({"box": {"label": "x"}}) == {("box.label", "x")}
    encode_metadata({"box": {"label": "x"}})
