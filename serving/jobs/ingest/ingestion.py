"""What came of an ingestion, into a folder or through a server."""

from dataclasses import dataclass, field


@dataclass
class Ingestion:
    """Counts of images; `left_out` has the reason by id where an image can't be read or is refused.

    `stored` were embedded and stored, `unchanged` were there already, and `removed` had gone from their source;
    `unseen` are the places of those that may have gone, too, but could not be looked for.
    """

    stored: int = 0
    unchanged: int = 0
    removed: int = 0
    unseen: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def check(self, source: object) -> None:
        """Raise ValueError if there were images and none of them could be stored."""
        if self.left_out and not self.stored + self.unchanged:
            raise ValueError(f"none of the {len(self.left_out):,} images of {source} can be stored")
