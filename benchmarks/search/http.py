"""What a search takes over HTTP beside the same call in this process: a vector, and a picture, one at a time.

A release of random weights (`benchmarks.tools.random_release`), whose embeddings have as many numbers as the vectors
stored, is served by TorchServe with one worker, and its engine is opened here too, on the same collection. One client
asks both in turn. A picture's figure includes embedding it. `benchmarks.serving.serving` measures load.
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from benchmarks.tools.filled import fill
from benchmarks.tools.random_release import write_random_release
from benchmarks.tools.turns import in_turn, medians
from core.releases.manifest import Release
from export.publishing.archive import build_archive
from serving.client.client import Client
from serving.collection.catalogue.vectors import Vectors
from serving.collection.index.faiss.compaction import compact
from serving.collection.index.faiss.kinds import Plan
from serving.engine import Engine
from serving.inference.choice import Form
from serving.inference.options import EngineOptions
from serving.protocol.messages import Answer
from serving.protocol.operations import Request, SearchRequest
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from training.recipe.config import Architecture

ARCHITECTURES: dict[int, Architecture] = {512: "resnet18", 2048: "resnet50"}
_SIZE = 32
_FORM: Form = "onnx"


@dataclass(frozen=True)
class HttpFigures:
    """Milliseconds a search, one at a time: by what is asked, over HTTP and in this process."""

    vector_http_ms: float
    vector_here_ms: float
    image_http_ms: float
    image_here_ms: float


def over_http(parts: Iterable[Vectors], folder: Path, *, count: int, kind: str, queries: Vectors) -> HttpFigures:
    """Fill a collection in `folder` with `count` vectors, serve it, and ask. What is there already is used.

    Raises `ValueError` where no encoder here has embeddings of that width.
    """
    folder.mkdir(parents=True, exist_ok=True)
    release = _release(folder / "release", queries.shape[1])
    catalogue = fill(folder / "collection", parts, count=count, release=release.space)
    base = catalogue.bases.get(release.space)
    if base is None or base.kind != kind or base.count != count:
        compact(catalogue, release.space, Plan(kind=kind))
    archive = next(folder.glob("*.mar"), None) or build_archive(release, folder)
    engine = Engine.open(release.folder, folder / "collection", options=EngineOptions(form=_FORM))
    settings = Settings(archive, port=0, workers=1, form=_FORM, collection=folder / "collection")
    with Server(settings) as server, Client(server.url) as client:
        return _ask(client, engine, queries)


def _ask(client: Client, engine: Engine, queries: Vectors, *, rounds: int = 5, each: int = 40) -> HttpFigures:
    picture = _picture(seed=1)

    def here(request: Request) -> None:
        (answer,) = engine.answer([request])
        assert isinstance(answer, Answer), answer

    def timed(ask: Callable[[Vectors], object]) -> float:
        took = []
        for query in queries[:each]:
            start = perf_counter()
            ask(query)
            took.append(perf_counter() - start)
        return median(took) * 1e3

    measures: dict[str, Callable[[], float]] = {
        "vector_http_ms": lambda: timed(lambda query: client.search(vectors=query[None])),
        "vector_here_ms": lambda: timed(lambda query: here(SearchRequest(vectors=(query.tolist(),)))),
        "image_http_ms": lambda: timed(lambda query: client.search([picture])),
        "image_here_ms": lambda: timed(lambda query: here(SearchRequest(images=(picture,)))),
    }
    for measure in measures.values():
        measure()
    return HttpFigures(**{name: round(value, 3) for name, value in medians(in_turn(measures, rounds)).items()})


def _release(folder: Path, dim: int) -> Release:
    if folder.is_dir():
        return Release(folder)
    if dim not in ARCHITECTURES:
        raise ValueError(f"no encoder has {dim} numbers; those here have {sorted(ARCHITECTURES)}")
    noise = np.random.default_rng(0).integers(256, size=(16, _SIZE, _SIZE, 3), dtype=np.uint8)
    return write_random_release(folder, noise, architecture=ARCHITECTURES[dim])


def _picture(*, seed: int) -> bytes:
    """A JPEG of noise."""
    pixels = np.random.default_rng(seed).integers(256, size=(_SIZE, _SIZE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()
