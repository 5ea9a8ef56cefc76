"""How an engine runs, as one value that the launcher decides and a worker process reads from its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from serving.collection.index.choice import FAISS, IndexChoice
from serving.inference.choice import FORMS, Form

_PREFIX = "SIMCLR_"


@dataclass(frozen=True)
class EngineOptions:
    """How to run a release.

    For `form` see `serving.inference.choice`. `threads` run one forward pass; 0 means every core that the process may
    use. `cache_mb` megabytes of embeddings are kept for images that are sent again. `cores_lock` is the file of a
    `serving.inference.backends.CoresLock` that several workers share, or "". `index` is what a collection is searched
    with, see `serving.collection.index.choice`.
    """

    form: Form = "auto"
    threads: int = 0
    cache_mb: int = 0
    cores_lock: str = ""
    index: str = field(default=FAISS, repr=False)  # may carry a password

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"form is {self.form!r}; it must be one of {', '.join(FORMS)}")
        for name, number in (("threads", self.threads), ("cache_mb", self.cache_mb)):
            if number < 0:
                raise ValueError(f"{name} is {number}; it must be 0 or more")
        IndexChoice.parse(self.index)

    def to_environment(self) -> dict[str, str]:
        """The environment variables that `from_environment` reads."""
        return {_PREFIX + one.name.upper(): str(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "EngineOptions":
        """Read SIMCLR_FORM, SIMCLR_THREADS, SIMCLR_CACHE_MB, SIMCLR_CORES_LOCK, SIMCLR_INDEX; absent: the default.

        Raises ValueError naming the variable and its value.
        """
        given: dict[str, Any] = {}
        for one in fields(cls):
            text = environment.get(_PREFIX + one.name.upper(), "")
            if text:
                given[one.name] = _parsed(_PREFIX + one.name.upper(), text, one.default)
        return cls(**given)


def _parsed(name: str, text: str, default: object) -> object:
    if isinstance(default, str):
        return text
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be a whole number") from None
