"""Filters as JSON has them: what makes no sense is explained."""

from typing import Any

import pytest

from serving.collection.catalogue.filter_parser import parse_filter
from serving.collection.errors import FilterError


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], r"filter is \[\]; it must be an object"),
        ("cat", "filter is 'cat'; it must be an object"),
        ({"": 1}, "a key of the filter is empty"),
        ({"colour": {"is": "red"}}, "filter key 'colour' has 'is'; accepted: in, exists, gt, gte, lt, lte"),
        ({"colour": {}}, "filter key 'colour' has no test; accepted: in"),
        ({"colour": ["red"]}, r"filter key 'colour' is \['red'\]; a text, number, boolean or null is accepted"),
        ({"colour": {"in": "red"}}, "filter key 'colour': in is 'red'; it must be a list"),
        ({"colour": {"in": [{}]}}, "filter key 'colour' is {}"),
        ({"price": {"gte": True}}, "filter key 'price': gte is True; it must be a number or text"),
        ({"price": {"gt": 1, "gte": 2}}, "filter key 'price' has both gt and gte"),
        ({"price": {"gt": 1, "lt": "b"}}, "both must be numbers, or both text"),
        ({"price": float("inf")}, "filter key 'price' is inf"),
        ({"price": 2**64}, "integers must fit 64 bits"),
        ({"camera": {"exists": 1}}, "filter key 'camera': exists is 1; it must be true or false"),
        ({"label": 3}, "filter key 'label' is 3; it must be text"),
        ({"bytes": {"gt": "3"}}, "filter key 'bytes' is '3'; it must be a number"),
        ({"created": True}, "filter key 'created' is True; it must be a number"),
        ({"and": []}, r"filter key 'and' is \[\]; it must be a list of at least one filter"),
        ({"or": {"a": 1}}, "filter key 'or' is {'a': 1}; it must be a list"),
        ({"or": [{}]}, "an element of filter key 'or' is {}; it must be an object"),
        ({"not": {}}, "filter key 'not' is {}"),
        ({"a": {"in": list(range(10_001))}}, "more than 10000 values, at key 'a'"),
        ({"or": [{"a": 1}] * 257}, "more than 256 conditions, at key 'a'"),
    ],
)
def test_a_filter_that_means_nothing_is_explained(written: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        parse_filter(written)
