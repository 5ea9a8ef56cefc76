"""Images to a data folder.

Every file is decoded once by `core.images.decode`, to the very pixels that will be served, and lands in
`training.data.dataset`'s format. Files that can't be read are listed in dataset.json and reported; none readable
is an error. A folder that already holds the answer to the same request about the same files is reused. A
preparation that was killed starts over: decoding a million small files takes minutes, not days.
"""

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol, TypeVar

from core.files.durable import publish_file
from core.files.json_text import json_text
from core.images.folders import ImageSource, SourceError, check_utf8, open_source
from training.data.alike import look_alikes
from training.data.dataset import FACTS, IMAGES, ITEMS, Dataset
from training.data.decoding import Decoded, choose_size, decode_all
from training.data.layout import assign
from training.data.listing import Listing, list_images

logger = logging.getLogger(__name__)

_REASONS_SHOWN = 3

Written = TypeVar("Written")


class Assign(Protocol):
    """Splits, and labels where there are any, from names."""

    def __call__(
        self, names: Sequence[str], *, seed: int, hold_out: float
    ) -> tuple[list[str], Sequence[str | None] | None]:
        """For each name its split; and its label, or None for all."""


@dataclass(frozen=True)
class Request:
    """How images become a data folder. `image_size` is pixels, or 0 to choose by the images ("auto")."""

    image_size: int = 0
    max_size: int = 224
    seed: int = 0
    hold_out: float = 0.1

    def __post_init__(self) -> None:
        if self.image_size and not 4 <= self.image_size <= 1024:
            raise ValueError(f"image_size is {self.image_size}; accepted: 4 to 1024 pixels, or auto")
        if not 8 <= self.max_size <= 1024:
            raise ValueError(f"max_size is {self.max_size}; accepted: 8 to 1024 pixels")
        if not 0 < self.hold_out <= 0.5:
            raise ValueError(f"hold_out is {self.hold_out}; accepted: above 0, to 0.5")


@dataclass(frozen=True)
class Given:
    """Where images come from, which of them, what becomes of their names, and what else is to be recorded."""

    source: ImageSource
    listing: Listing
    assign: Assign
    name: str
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(images: Path | str, out: Path | str, *, name: str = "", request: Request = Request()) -> Dataset:
    """Write the data folder `out` from a folder or zip of image files, or reuse it if it is there.

    `name` defaults to the name of `images`. Raises `SourceError` if the source can't be opened, holds no
    image files, or none that can be read; ValueError for a request out of range.
    """
    source = open_source(Path(images).resolve())
    return prepare_given(Given(source, list_images(source), assign, name or source.path.stem), Path(out), request)


def prepare_given(given: Given, out: Path, request: Request) -> Dataset:
    """`prepare` for any source of images whose listing is made and whose splits are known."""
    check_utf8(out.absolute())
    asked = {"source": str(given.source.path), "fingerprint": given.listing.fingerprint, **asdict(request)}
    if _answers(out, asked):
        logger.info("%s is up to date; reusing it", out)
        dataset = Dataset.load(out)
        _report(dataset.facts)
        return dataset
    out.mkdir(parents=True, exist_ok=True)
    (out / FACTS).unlink(missing_ok=True)
    facts = _write(given, out=out, request=request) | given.facts
    ignored = given.listing.ignored
    facts |= {"name": given.name, "request": asked, "ignored": sum(ignored.values()), "ignored_kinds": ignored}
    _publish(out / FACTS, lambda target: target.write_text(json_text(facts, indent=1)))
    _report(facts)
    return Dataset.load(out)


def _answers(out: Path, asked: dict[str, Any]) -> bool:
    try:
        return bool(json.loads((out / FACTS).read_text())["request"] == asked)
    except (OSError, ValueError, KeyError):
        return False


def _write(given: Given, *, out: Path, request: Request) -> dict[str, Any]:
    """Write images.npy and items.jsonl, each whole or not at all; returns most of dataset.json."""
    source, listing = given.source, given.listing
    size = request.image_size or choose_size(source, listing, max_size=request.max_size)
    _check_space(out, len(listing.names) * size * size * 3)
    decoded = _publish(out / IMAGES, lambda target: decode_all(source, listing, size=size, target=target))
    splits, labels = given.assign(decoded.names, seed=request.seed, hold_out=request.hold_out)
    items = _items(decoded, splits, labels)
    digest = _publish(out / ITEMS, lambda target: _write_lines(target, items))
    digest.update(decoded.pixels_digest.encode())
    return {
        "source": str(source.path),
        "prefix": listing.prefix,
        "image_size": size,
        "classes": sorted(filter(None, set(labels)), key=_natural) if labels else None,
        "counts": dict(Counter(splits)),
        "digest": digest.hexdigest(),
        "seed": request.seed,
        "unreadable": decoded.unreadable,
    }


def _publish(path: Path, write: Callable[[Path], Written]) -> Written:
    """Write a file whole or not at all; returns what `write` does. `SourceError` if there is no room for it."""
    results: list[Written] = []
    try:
        publish_file(path, lambda target: results.append(write(target)))
    except OSError as error:
        raise SourceError(f"can't write {path}: {error}; nothing of it is kept") from error
    return results[0]


def _check_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise SourceError(f"the images take {needed:,} bytes, but {out} has only {free:,} bytes free")


def _items(decoded: Decoded, splits: list[str], labels: Sequence[str | None] | None) -> Iterator[bytes]:
    images = zip(decoded.names, decoded.digests, splits, strict=True)
    for (name, digest, split), label in zip(images, labels or repeat(None), strict=bool(labels)):
        yield (json_text({"id": name, "label": label, "split": split, "sha256": digest.hex()}) + "\n").encode()


def _write_lines(target: Path, lines: Iterator[bytes]) -> "hashlib._Hash":
    """Write lines as they come; returns the SHA-256 over them, to go on with."""
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
    return digest


def _natural(label: str) -> tuple[bool, int, str]:
    """Numbers in the order of their values, before names; no two labels are equal ("1" and "01")."""
    return (False, int(label), label) if label.isdecimal() else (True, 0, label)


def _report(facts: dict[str, Any]) -> None:
    if facts["ignored"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in facts.get("ignored_kinds", {}).items())
        logger.info("files that are no images by their suffix and are left out: %d (%s)", facts["ignored"], kinds)
    for group in look_alikes(facts["classes"] or ()):
        logger.warning(
            "labels that look alike but are spelt differently in Unicode, and are kept apart: %s",
            ", ".join(map(ascii, group)),
        )
    unreadable = facts["unreadable"]
    if unreadable:
        shown = unreadable[:_REASONS_SHOWN]
        logger.warning("image files that can't be read and are left out: %d; the first:", len(unreadable))
        for item in shown:
            logger.warning("  %s: %s", item["path"], item["reason"])
        if len(unreadable) > len(shown):
            logger.warning("  (all of them are listed in %s)", FACTS)
