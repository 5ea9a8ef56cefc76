"""What came of an ingestion, into a folder or through a server."""

from dataclasses import dataclass, field


@dataclass
class Ingestion:
    """Counts of images; `left_out` has the reason by id where an image can't be read or is refused.

    `stored` were embedded and stored, `unchanged` were there already, and `removed` had gone from their source.
    """

    stored: int = 0
    unchanged: int = 0
    removed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
