"""Labels that look alike: "café" as four characters, as macOS's folders have it as five, or with a space at its end.

They stay apart, since only a person knows whether they are one; but that person cannot see the difference.
"""

import unicodedata
from collections.abc import Iterable


def look_alikes(labels: Iterable[str]) -> list[list[str]]:
    """The groups of two labels or more that differ in nothing but Unicode form and spaces, each group sorted."""
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault(_seen(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def _seen(label: str) -> str:
    """What a person sees of it: the compatible composed form, without what has no width."""
    composed = unicodedata.normalize("NFKC", label)
    return " ".join("".join(one for one in composed if unicodedata.category(one) != "Cf").split())
