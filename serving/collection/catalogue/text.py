"""Names that people give (ids, labels, metadata keys): what makes a text one of them."""

import unicodedata
from typing import Any


def text_problem(value: Any, most_bytes: int) -> str | None:
    """What is wrong with a name, as the end of a sentence; None if it is non-empty UTF-8 without control characters."""
    if not isinstance(value, str):
        return f"is {value!r:.80}; it must be text"
    if not value:
        return "is empty"
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        return f"is {value!r:.80}, which is no valid UTF-8"
    if length > most_bytes:
        return f"is {value!r:.80} and takes {length} bytes; at most {most_bytes}"
    if any(unicodedata.category(character) == "Cc" for character in value):
        return f"is {value!r:.80}; control characters are not accepted"
    return None
