"""What arguments are made of: functions for argparse's `type`, shared by commands.

Each takes the text that was typed; ArgumentTypeError says what is wrong with it and what is accepted.
"""

import argparse
import json
from typing import Any


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return whole_number(text, least=1)


def not_negative(text: str) -> int:
    """A whole number of at least 0."""
    return whole_number(text, least=0)


def port_number(text: str) -> int:
    """A port, 0 for any that is free."""
    return whole_number(text, least=0, most=65535)


def whole_number(text: str, *, least: int, most: int | None = None) -> int:
    """A whole number in a range, both ends included."""
    accepted = f"{least} or more" if most is None else f"{least} to {most}"
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be a whole number, {accepted}") from None
    if number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"is {number}; it must be {accepted}")
    return number


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, such as {"label": "cat"}."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is {text!r}, which is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'is {text!r}; it must be a JSON object, such as {{"label": "cat"}}')
    return found
