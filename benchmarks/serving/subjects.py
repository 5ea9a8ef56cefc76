"""What a benchmark of serving measures with: at each image size a release, its archive, its file, and real JPEGs.

The release is given, or published here from a checkpoint, or has random weights, which measure speed alone
and are named beside every figure. `benchmarks.serving.contest` measures.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.tools.jpegs import PHOTOGRAPH, QUALITY, enlarge, read_jpegs
from core.images.decode import decode
from core.releases.manifest import FORMATS, Release
from export.publishing.archive import build_archive
from serving.inference.choice import choose

JPEGS = 256
_CALIBRATION = 16
SMALL, LARGE = 32, 224


@dataclass(frozen=True)
class Subject:
    """One image size: `file` is what every server but torch's runs, in `form`; `notes` belong beside every figure."""

    size: int
    release: Release
    archive: Path
    form: str
    file: Path
    jpegs: tuple[bytes, ...]
    notes: tuple[str, ...] = field(default=())


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """--images, where releases come from, and which file of them is run by what."""
    parser.add_argument("--images", type=Path, required=True, help="a folder or a zip with real JPEG files")
    parser.add_argument("--release", type=Path, help="folder of a release for small images, of 32 px")
    parser.add_argument("--release-224", type=Path, help="the same for photographs (default: random weights)")
    for name, what in (("checkpoint", "checkpoint.safetensors"), ("evaluation", "evaluation folder"), ("data", "data")):
        parser.add_argument(f"--{name}", type=Path, help=f"instead of --release: the {what} to publish one from")
    parser.add_argument("--random-weights", action="store_true", help="instead of --release: for speed only")
    parser.add_argument("--form", default="auto", help="which file of the release: auto (default), onnx, int8, ...")
    parser.add_argument("--architecture", default="resnet50", help="of random weights (default: %(default)s)")


def prepare(options: argparse.Namespace, sizes: Sequence[int], *, work: Path) -> dict[int, Subject]:
    """The subjects by size, what they lack made in `work`; raises ValueError where something is missing."""
    maker = _Maker(options, work, read_jpegs(options.images, JPEGS))
    makers = {SMALL: maker.small, LARGE: maker.large}
    return {size: makers[size]() for size in sizes}


@dataclass(frozen=True)
class _Maker:
    options: argparse.Namespace
    work: Path
    files: list[bytes]

    def small(self) -> Subject:
        if self.options.release is not None:
            return self._subject(Release(self.options.release), self.files)
        if self.options.checkpoint is not None:
            return self._subject(self._published(), self.files)
        if self.options.random_weights:
            return self._subject(self._random(self.files, SMALL), self.files, self._warning(SMALL))
        raise ValueError(
            "release is not given; name one with --release, or what to publish one from with --checkpoint, "
            "--evaluation and --data, or measure speed alone with --random-weights"
        )

    def large(self) -> Subject:
        jpegs = enlarge(self.files)
        width, height = PHOTOGRAPH
        note = (
            f"the files are those of --images enlarged to {width}x{height}, quality {QUALITY}: "
            f"{sum(map(len, jpegs)) / len(jpegs) / 1024:.0f} KiB each, smoother than photographs"
        )
        if self.options.release_224 is not None:
            return self._subject(Release(self.options.release_224), jpegs, note)
        return self._subject(self._random(jpegs, LARGE), jpegs, note, self._warning(LARGE))

    def _subject(self, release: Release, jpegs: list[bytes], *notes: str) -> Subject:
        form = choose(release, form=self.options.form).form
        home = self.work / f"archive-{release.manifest.input.size}"
        home.mkdir()
        return Subject(
            size=release.manifest.input.size,
            release=release,
            archive=build_archive(release, home, torchscript=form == "torchscript"),
            form=form,
            file=release.file(FORMATS[form]),
            jpegs=tuple(jpegs),
            notes=notes,
        )

    def _published(self) -> Release:
        from export.publishing.release import Ingredients, publish

        options = self.options
        missing = [name for name in ("evaluation", "data") if getattr(options, name) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)} not given; --checkpoint needs --evaluation and --data beside it")
        ingredients = Ingredients(options.checkpoint, options.evaluation, options.data)
        return publish(ingredients, "benchmark", self.work / "store")

    def _random(self, jpegs: list[bytes], size: int) -> Release:
        from benchmarks.tools.random_release import write_random_release

        pixels = np.stack([decode(data, size) for data in jpegs[:_CALIBRATION]])
        return write_random_release(self.work / f"random-{size}", pixels, architecture=self.options.architecture)

    def _warning(self, size: int) -> str:
        return f"RANDOM WEIGHTS ({self.options.architecture}, {size} px): these figures are of speed and nothing else"
