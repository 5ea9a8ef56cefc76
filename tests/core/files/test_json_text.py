import ast
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.files.json_text import json_text

ROOT = Path(__file__).parents[3]
ROOMS = ("core", "training", "export", "serving", "retraining", "cli", "scripts")
# A checkpoint's counters go back into the same program, and must come back as they were.
EXEMPT = {"core/files/json_text.py", "training/run/checkpoint.py"}


def test_numbers_that_are_not_finite_are_null() -> None:
    value = {"a": float("nan"), "b": [np.float64("inf"), 1.5, (float("-inf"), "NaN")], "c": {"d": 2}, "e": None}
    expected = {"a": None, "b": [None, 1.5, [None, "NaN"]], "c": {"d": 2}, "e": None}
    assert json.loads(json_text(value), parse_constant=pytest.fail) == expected
    assert json_text(value, indent=1) == json.dumps(expected, indent=1)


def test_what_is_finite_is_written_as_ever() -> None:
    value = {"a": 0.1, "ü": [1, (2, 3)], "path": Path("x")}
    assert json_text(value, default=str) == json.dumps(value, default=str)
    with pytest.raises(TypeError):
        json_text(value)
    with pytest.raises(TypeError):
        json_text({"a": float("nan"), "b": Path("x")})


def dumps(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls of `json.dump` and `json.dumps` that may write a bare NaN."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
            strict = [one for one in node.keywords if one.arg == "allow_nan" and ast.unparse(one.value) == "False"]
            if not strict:
                yield node


def test_no_product_code_can_write_a_bare_nan() -> None:
    found = [
        f"{name}:{call.lineno}"
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if (name := path.relative_to(ROOT).as_posix()) not in EXEMPT
        for call in dumps(ast.parse(path.read_text()))
    ]
    assert not found, "write these by core.files.json_text, or with allow_nan=False where a NaN is an error"


def test_the_scan_sees_both_forms() -> None:
    text = "json.dumps(a)\njson.dump(a, b, allow_nan=True)\njson.dumps(a, allow_nan=False)"
    assert [call.lineno for call in dumps(ast.parse(text))] == [1, 2]
