"""The service whose workers `benchmarks.durability.durability --http` kills: a tiny release, its archive, TorchServe.

The release has random weights and takes pictures of 16 pixels, so that a request costs little. The pictures are made
here, and their right embeddings are computed here too, by the same file in this process. Killing is in
`benchmarks.durability.http`, the writers in `benchmarks.durability.writer`.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.durability.child import BATCH
from benchmarks.tools.child import ChildError
from benchmarks.tools.random_release import write_random_release
from core.images.decode import ImageError, decode
from core.releases.manifest import Release
from export.publishing.archive import build_archive
from serving.collection.catalogue.vectors import Vectors
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings

WORKERS = 2
TOLERANCE = 1e-4  # of an embedding's numbers: they differ a little with the batch that an image is embedded in
_SIZE = 16
_PICTURES = 128


@dataclass(frozen=True, eq=False)
class Pictures:
    """Image files and their embeddings (N, D), no two alike."""

    files: Sequence[bytes]
    vectors: Vectors

    def of(self, writer: str, number: int, count: int = BATCH) -> list[int]:
        """Which of them a batch has: anyone can tell."""
        chance = np.random.default_rng([*writer.encode(), number])
        return [int(one) for one in chance.integers(0, len(self.files), count)]

    def vectors_of(self, writer: str, number: int) -> Vectors:
        """What the vectors (BATCH, D) of a batch must be."""
        return np.asarray(self.vectors[self.of(writer, number)])


@dataclass(frozen=True, eq=False)
class Service:
    """A server that runs on `folder`; `release` is the digest that the collection has its vectors under."""

    server: Server
    folder: Path
    release: str
    pictures: Pictures

    def address(self, op: str) -> str:
        """Where an operation is asked for."""
        return f"{self.server.url}/models/{self.server.model}/invoke?op={op}"

    def ready(self) -> set[int]:
        """The processes that serve, as TorchServe has it."""
        assert self.server.management is not None
        workers = [worker for one in self.server.management.versions().values() for worker in one.all]
        return {worker.pid for worker in workers if worker.status == "READY" and _is_alive(worker.pid)}


def prepare(work: Path) -> tuple[Release, Path]:
    """A release and its archive in `work`, made there unless an earlier run left them."""
    home = work / "release"
    if not home.exists():
        pixels = np.stack([decode(file, _SIZE) for file in _draw(_PICTURES)])
        write_random_release(home, pixels, architecture="resnet18")
    release = Release(home)
    return release, build_archive(release, work)  # with the code of today


def draw_pictures(release: Release) -> Pictures:
    """Pictures for this release. Raises `ChildError` if two of them have embeddings too near to be told apart."""
    files = _draw(_PICTURES)
    engine = Engine.open(release.folder, options=EngineOptions(form="onnx", threads=1))
    found = [one for one in engine.embed_files(files) if not isinstance(one, ImageError)]
    vectors = np.stack([one.embedding for one in found])
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2) + np.eye(len(vectors))
    if len(vectors) != len(files) or apart.min() < 10 * TOLERANCE:
        raise ChildError(
            f"the embeddings of two pictures differ by {apart.min():.1e} only: no one could tell them apart"
        )
    return Pictures(files, vectors)


@contextmanager
def serve(release: Release, archive: Path, folder: Path, pictures: Pictures) -> Iterator[Service]:
    """TorchServe with two workers on the collection at `folder`."""
    settings = Settings(archive, collection=folder, port=0, workers=WORKERS, form="onnx")
    with Server(settings) as server:
        yield Service(server, folder, release.space, pictures)


def _draw(count: int) -> list[bytes]:
    """Coloured patches of random shades, PNG."""
    files = []
    for number in range(count):
        shades = np.random.default_rng([16, number]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(shades).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC).save(file, "PNG")
        files.append(file.getvalue())
    return files


def _is_alive(pid: int) -> bool:
    """Whether it runs, and is not a dead one that nobody has asked after yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return pid != os.getpid() and state != "Z"
