"""A release's manifest: the contract between those who write releases and those who run them.

A release is a folder `model_store/<name>/<version>/` with this file as `manifest.json`. Everything in the
folder is listed with its SHA-256; the digest of `manifest.json` itself therefore names the whole release, and
the embedding space with it.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.files.durable import sha256_of
from core.images.jpeg import MARGIN
from core.images.seen import Contents

SCHEMA = 4
READABLE = (1, 2, 3, 4)  # 1 had no gates, no formats but onnx and torchscript; 2 no space, no promotion; 3 no margin
FILE_NAME = "manifest.json"
MEDIANS = "medians.npy"
PROBE = "probe.npy"
SEEN = "seen.npy"
FORMATS = {
    "onnx": "encoder.onnx",
    "int8": "encoder.int8.onnx",
    "fp16": "encoder.fp16.onnx",
    "torchscript": "encoder.pt",
}


class ManifestError(ValueError):
    """A release that can't be trusted: it is missing, altered, half-written, or of an unknown schema."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of the release."""

    sha256: str
    bytes: int


class InputContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the graph takes: uint8 of shape (N, size, size, 3), RGB, N free."""

    size: int
    resize: str = "short side to size (bicubic, antialiased), then centre crop"
    layout: str = "NHWC"
    dtype: str = "uint8"
    colour: str = "RGB"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a release is, where it came from, and what was measured on it.

    `classes` holds the linear probe's labels in the order of its logits; None where no probe was fitted. `gates` says
    for each approximate format (int8, fp16) whether it was good enough to be among `files`, and by what figures.
    `space` names the embedding space if that is another release's, which has the same encoder and another probe.
    `jpeg_margin` says how many times as large as it is wanted a JPEG has to stay to be decoded at a smaller scale with
    this encoder; 0 means never, None that nothing was measured.
    `promotion` says whether it may take the place of the release that served when it was made, and by what figures.
    `lineage` and `metrics` are records for people and tools. Serving reads only `lineage["collection"]["seq"]` of them,
    the last write of a collection that the encoder was trained on, to know what is new where no `seen.npy` says so.
    """

    schema: int
    name: str
    version: int
    created: str
    architecture: str
    embedding_dim: int
    input: InputContract
    classes: tuple[str, ...] | None
    files: dict[str, FileEntry]
    parity: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    gates: dict[str, Any] = msgspec.field(default_factory=dict)
    space: str | None = None
    promotion: dict[str, Any] = msgspec.field(default_factory=dict)
    jpeg_margin: Annotated[int, msgspec.Meta(ge=0)] | None = None

    @property
    def title(self) -> str:
        """The release as replies name it, `name/version`."""
        return f"{self.name}/{self.version}"

    @property
    def margin(self) -> int:
        """The margin to decode with (`core.images.decode.open_upright`)."""
        return MARGIN if self.jpeg_margin is None else self.jpeg_margin


class Release:
    """A release on disk whose manifest has been read; files are checked one by one as they are opened."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        raw = _read_manifest(self.folder)
        self.digest = hashlib.sha256(raw).hexdigest()
        self.manifest = parse(raw, self.folder)

    @property
    def space(self) -> str:
        """The embedding space: vectors are comparable if, and only if, they are of the same space."""
        return self.manifest.space or self.digest

    def file(self, name: str) -> Path:
        """The path of one of the release's files, after checking its digest.

        Raises `ManifestError` if the release does not hold it or its bytes are not those of the manifest.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise ManifestError(
                f"release {self.manifest.title} has no {name}; it has {', '.join(sorted(self.manifest.files))}"
            )
        path = self.folder / name
        if not path.is_file():
            raise ManifestError(f"{path} is missing, though the manifest lists it: publish the release again")
        found = sha256_of(path)
        if found != entry.sha256:
            raise ManifestError(
                f"{path} was altered: its SHA-256 is {found}, the manifest says {entry.sha256}; "
                "restore the file or publish the release again"
            )
        return path

    @property
    def forms(self) -> tuple[str, ...]:
        """The formats of `FORMATS` whose files are here; an archive carries fewer than its manifest lists."""
        listed = {form: file for form, file in FORMATS.items() if file in self.manifest.files}
        return tuple(form for form, file in listed.items() if (self.folder / file).is_file())

    def medians(self) -> NDArray[np.float32] | None:
        """The median of each element of the embedding over training images, float32 (D,); None in an older release."""
        return self._numbers(MEDIANS)

    def probe(self) -> NDArray[np.float32] | None:
        """The linear probe, float32 (C, D + 1), with the bias last; None without labels, and in an older release."""
        return self._numbers(PROBE)

    def seen(self) -> Contents | None:
        """The pictures that training could see, uint64, ascending (`core.images.seen`); None in an older release."""
        return self._numbers(SEEN)

    def verify(self) -> None:
        """Check every file of the release; raise `ManifestError` at the first that differs."""
        for name in self.manifest.files:
            self.file(name)

    def _numbers(self, name: str) -> NDArray[Any] | None:
        return np.load(self.file(name), allow_pickle=False) if name in self.manifest.files else None


def is_name(text: str) -> bool:
    """Whether a text can name a release."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text) is not None


def check_name(name: str) -> str:
    """The name itself, if it can name a release; else ValueError."""
    if not is_name(name):
        raise ValueError(f"name is {name!r}; it must be letters (a to z), digits, '-' and '_', a letter or digit first")
    return name


def parse(raw: bytes, where: Path) -> Manifest:
    """Read a manifest's bytes strictly; `where` is named in the error."""
    try:
        schema = msgspec.json.decode(raw, type=dict[str, Any]).get("schema")
        if schema not in READABLE:
            readable = " and ".join(map(str, READABLE))
            raise ManifestError(
                f"{where} has a manifest of schema {schema!r}; this version reads schemas {readable}: "
                "serve it with the version that wrote it"
            )
        return msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise ManifestError(f"the manifest in {where} is broken: {error}") from error


def to_json(manifest: Manifest) -> bytes:
    """The manifest as it is stored: indented JSON with a last newline, the same bytes for the same content."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def entry_of(path: Path) -> FileEntry:
    """Size and digest of a file, as the manifest lists it."""
    return FileEntry(sha256=sha256_of(path), bytes=os.path.getsize(path))


def _read_manifest(folder: Path) -> bytes:
    path = folder / FILE_NAME
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{folder} is no release: it has no {FILE_NAME}") from None
