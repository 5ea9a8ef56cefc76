"""Labels that look alike but are spelt differently in Unicode: "é" as one character, or as "e" and an accent.

Both are kept, as nobody here knows which is meant; whoever stores the second is told of the first.
"""

import unicodedata
from collections.abc import Iterable

from serving.collection.catalogue.filters import OneOf
from serving.collection.catalogue.interface import Catalogue


def warnings_of(labels: Iterable[str | None], catalogue: Catalogue) -> dict[str, str]:
    """By label, what to tell of it: which spelling of it has items already. Most labels have no other spelling."""
    found: dict[str, str] = {}
    for label in set(labels):
        if label is None or label.isascii():
            continue
        others = {unicodedata.normalize("NFC", label), unicodedata.normalize("NFD", label)} - {label}
        if any(catalogue.items.count(OneOf("label", (other,))) for other in others):
            found[label] = (
                f"the label {label!a} looks like another one that is stored, and is spelt differently in Unicode"
            )
    return found
