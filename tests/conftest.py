"""The whole chain once per session, on real images: checkpoint, probe, release, archive, collection, server.

A ResNet-18 trained for one epoch stands for the ResNet-50 of the quickstart (which `test_quickstart` runs): what
is tested with it does not depend on how good the encoder is.
"""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.releases.manifest import Release
from export.publishing.archive import build_archive
from export.publishing.release import Ingredients, publish
from serving.client.client import Client
from serving.collection.catalogue.opening import open_catalogue
from serving.engine import Engine
from serving.inference.options import EngineOptions
from serving.jobs.ingest.into_folder import ingest
from serving.jobs.ingest.sources import data_folder
from serving.torchserve.launch import Server
from serving.torchserve.settings import Settings
from training.data.dataset import Dataset
from training.data.prepare import Request, prepare
from training.evaluation.evaluate import evaluate
from training.recipe.config import PretrainConfig, override
from training.run.pretrain import pretrain

# A key of whoever runs the tests is neither needed nor sent.
os.environ["SIMCLR_KEYS"] = "/nonexistent/keys.json"
os.environ.pop("SIMCLR_API_KEY", None)

# Files whose tests take a minute or more start first, for no process to be left alone with one at the end.
LONG = (
    "test_quickstart.py",
    "compatibility/test_earlier_folders.py",
    "retraining/test_command.py",
    "serving/torchserve/rollover/test_following.py",
    "benchmarks/serving/test_serving.py",
    "training/run/test_torchrun.py",
)
CIFAR10 = Path(__file__).parents[1].parent / "shared/data/cifar10-images.zip"
IMAGE_SIZE = 16


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by file: `LONG` first, the others as they were."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


def cifar10_files(*, per_label: dict[str, int]) -> dict[str, bytes]:
    """Real CIFAR-10 JPEGs, `train/<label>/NNNN.jpg` to bytes; skips the test where the zip is absent."""
    if not CIFAR10.exists():
        pytest.skip(f"{CIFAR10} is absent: these tests want real CIFAR-10 images")
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(CIFAR10) as archive:
        taken: dict[str, int] = {}
        for member in archive.namelist():
            parts = member.split("/")
            below = "/".join(parts[:3])
            if member.endswith(".jpg") and taken.get(below, 0) < per_label.get(parts[1], 0):
                taken[below] = taken.get(below, 0) + 1
                found["/".join(parts[1:])] = archive.read(member)
    return found


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below `root`; returns it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@dataclass(frozen=True)
class Chain:
    """What the stages of the main job left behind."""

    data: Dataset
    ingredients: Ingredients
    store: Path
    release: Release
    archive: Path
    collection: Path

    def test_files(self) -> list[bytes]:
        """The source bytes of the images that neither training nor the collection saw."""
        return [self.data.read_item(self.data.ids[row]) for row in self.data.rows("test")]

    def stored(self) -> tuple[list[str], NDArray[np.float64]]:
        """Every id of the collection and its stored embedding, read from SQLite."""
        catalogue = open_catalogue(self.collection)
        rows, vectors = catalogue.vectors.at(catalogue.vectors.census(self.release.digest).rows, self.release.digest)
        items = catalogue.items.at(rows.tolist())
        return [items[row].id for row in rows.tolist()], vectors.astype(np.float64)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The stages, in order, on 300 real images of ten labels."""
    root = tmp_path_factory.mktemp("chain")
    images = write_files(root / "images", cifar10_files(per_label={"train": 24, "test": 6}))
    data = prepare(images, root / "data", request=Request(image_size=IMAGE_SIZE))
    changes = {"encoder.architecture": "resnet18", "encoder.stem": "small", "encoder.image_size": IMAGE_SIZE}
    schedule = {"batch_size": 48, "epochs": 1, "optimiser.warmup_epochs": 0.5, "head.hidden": 64}
    checkpoint = pretrain(data, root / "pretrain", override(PretrainConfig(), changes | schedule))
    evaluate(data, checkpoint, root / "evaluation", baselines=False)
    ingredients = Ingredients(checkpoint, root / "evaluation", data.folder)
    release = publish(ingredients, "chain", root / "store")
    archive = build_archive(release, root / "store")
    ingest(
        Engine.open(release.folder, options=EngineOptions(form="onnx")),
        open_catalogue(root / "collection", create=True),
        data_folder(data.folder, ("train", "validation")),
    )
    return Chain(data, ingredients, root / "store", release, archive, root / "collection")


@pytest.fixture(scope="session")
def engine(chain: Chain) -> Engine:
    """The engine on the chain's release, in float32, and collection, without a server."""
    return Engine.open(chain.release.folder, chain.collection, options=EngineOptions(form="onnx"))


@pytest.fixture(scope="session")
def server(chain: Chain) -> Iterator[Server]:
    """The real TorchServe on the chain's archive, in float32, and collection."""
    with Server(Settings(chain.archive, collection=chain.collection, port=0, form="onnx")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of the real server."""
    with Client(server.url) as connected:
        yield connected
