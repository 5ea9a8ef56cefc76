"""Values as JSON text in which a number that is not finite is null: JSON has no NaN and no Infinity.

Python's own `json.dumps` writes them bare, and no other reader takes such a file.
"""

import json
import math
from collections.abc import Callable
from typing import Any


def json_text(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """`value` as `json.dumps` writes it, but with null for NaN and the infinities. Raises TypeError as that does."""
    try:
        return json.dumps(value, indent=indent, default=default, allow_nan=False)
    except ValueError:  # rare, so only then is the value copied
        return json.dumps(_finite(value), indent=indent, default=default, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
