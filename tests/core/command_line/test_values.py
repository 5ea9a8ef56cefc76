"""Arguments of the wrong kind are refused with a sentence that names them."""

import argparse

import pytest

from core.command_line.values import json_object, not_negative, port_number, positive


def test_what_is_right_is_taken() -> None:
    assert (positive("3"), not_negative("0"), port_number("8080")) == (3, 0, 8080)
    assert json_object('{"label": "cat"}') == {"label": "cat"}


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (positive, "0", "is 0; it must be 1 or more"),
        (positive, "x", "is 'x'; it must be a whole number, 1 or more"),
        (not_negative, "-1", "is -1; it must be 0 or more"),
        (port_number, "65536", "is 65536; it must be 0 to 65535"),
        (json_object, "[1]", "must be a JSON object"),
        (json_object, "{", "which is not JSON"),
    ],
)
def test_what_is_wrong_is_named(kind: object, text: str, message: str) -> None:
    assert callable(kind)
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        kind(text)
