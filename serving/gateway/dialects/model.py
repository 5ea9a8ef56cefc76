"""What is being served, as the dialects tell of it: one model, whose name and version are those of its release."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serving.protocol.agreed import MODEL
from serving.protocol.messages import Answer, RequestError

ANY_RELEASE = (MODEL, "default")  # names for whatever release is served
_AGAIN_AFTER = 1  # seconds; a worker that died is back within a few


@dataclass(frozen=True)
class ServedModel:
    """One release: `title` is its name and version, embeddings have `dim` numbers, images `size` pixels a side.

    `labels` are those of its linear probe, in the order of the logits; None where it has none. `form` is the file that
    runs, and `created` when the release was published, in seconds since 1970.
    """

    title: str
    architecture: str
    dim: int
    size: int
    labels: tuple[str, ...] | None
    form: str
    created: int

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> "ServedModel":
        """From the answer to describe."""
        labels = description["labels"]
        return cls(
            title=description["release"],
            architecture=description["architecture"],
            dim=description["embedding_dim"],
            size=description["image_size"],
            labels=None if labels is None else tuple(labels),
            form=description["form"],
            created=int(datetime.fromisoformat(description["created"]).timestamp()),
        )

    @property
    def name(self) -> str:
        """The release's name, without its version."""
        return self.title.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The release's version."""
        return self.title.rpartition("/")[2]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a request may call this model."""
        return (self.title, self.name, *ANY_RELEASE)


def needed(model: ServedModel | None) -> ServedModel:
    """The model; raises `RequestError` (503) where no worker can answer now."""
    if model is None:
        raise RequestError("no worker can answer now; try again", 503, retry_after=_AGAIN_AFTER)
    return model


def check_release(answer: Answer, asked: str, model: ServedModel) -> None:
    """Raise `RequestError` (404) if one release was asked for by its title and, since then, another one answers.

    Vectors of two releases must never be taken for those of one.
    """
    if asked == model.title and answer.release != asked:
        raise RequestError(f"model is {asked!r}, which was replaced by {answer.release!r} just now", 404)
