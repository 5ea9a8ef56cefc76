"""What a catalogue records of an index's base: which file it is, and what was measured of it."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class BaseRecord:
    """A FAISS file of the collection's folder, which holds every write to its release up to `seq`.

    `recall` is recall@10, measured when it was built; `facts` say how deep it is searched and how that was found.
    """

    release: str
    file: str
    sha256: str
    count: int
    dim: int
    seq: int
    kind: str = "exact"
    recall: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)


class Position(NamedTuple):
    """Where a release stands: the number of the last write to its vectors; its base's file and depth, if it has one."""

    seq: int
    file: str | None
    depth: int | None = None
