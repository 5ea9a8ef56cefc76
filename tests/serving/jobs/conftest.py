"""A release of some kilobytes and noise images, and the real command in a process of its own.

The release is whole and runs in the real runtime; only its graph is a matrix instead of an encoder, so that what is
tested here (shards, kills, tasks) is not waited for. `test_worker` embeds with a real encoder.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from core.files.durable import publish_text
from core.releases.manifest import FILE_NAME, FORMATS, SCHEMA, InputContract, Manifest, Release, entry_of, to_json
from serving.engine import Engine

ROOT = Path(__file__).parents[3]
SIZE, DIM = 8, 16
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0})); "
BULK = "import sys, serving.jobs.bulk.command as bulk; sys.exit(bulk.main(bulk.COMMAND, sys.argv[1:]))"


def write_release(folder: Path, *, version: int = 1) -> Release:
    """A release whose graph is a random matrix of its own; unit-norm embeddings of 16 numbers, of 8 px images."""
    folder.mkdir(parents=True)
    pixels = SIZE * SIZE * 3
    matrix = np.random.default_rng(version).normal(size=(pixels, DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("LpNormalization", ["product"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "matrix",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", DIM])],
        [
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.array([-1, pixels], np.int64), "shape"),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / FORMATS["onnx"])
    manifest = Manifest(
        schema=SCHEMA,
        name="matrix",
        version=version,
        created="2024-01-01T00:00:00Z",
        architecture="matrix",
        embedding_dim=DIM,
        input=InputContract(size=SIZE),
        classes=None,
        files={FORMATS["onnx"]: entry_of(folder / FORMATS["onnx"])},
        parity={},
        metrics={},
        lineage={},
    )
    publish_text(folder / FILE_NAME, to_json(manifest).decode())
    return Release(folder)


def write_images(folder: Path, names: list[str]) -> Path:
    """PNG files of noise, 10 px a side, no two alike."""
    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="session")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The small release."""
    return write_release(tmp_path_factory.mktemp("store") / "matrix/1")


@pytest.fixture(scope="session")
def small_engine(matrix: Release) -> Engine:
    """The engine on it: what every embedding here is compared with."""
    return Engine.open(matrix.folder)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 90 images, 7 of them broken in two ways, and other files."""
    names = [f"{folder}/{number:02d}.png" for folder in ("a", "a.b", "b/c") for number in range(30)]
    folder = write_images(tmp_path_factory.mktemp("images") / "images", names)
    for number in range(0, 30, 5):
        (folder / f"a/{number:02d}.png").write_bytes(b"not an image")
    (folder / "b/c/07.png").unlink()
    (folder / "b/c/07.png").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed: its folder, how it was asked for, and what it said."""

    out: Path
    arguments: list[str]
    code: int
    output: str
    errors: str

    def copy(self, out: Path) -> Path:
        """Its folder once more."""
        return shutil.copytree(self.out, out)

    def arguments_for(self, out: Path) -> list[str]:
        """The same command for another folder."""
        return [str(out) if given == str(self.out) else given for given in self.arguments]


@pytest.fixture(scope="session")
def whole(matrix: Release, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """What every other run of the command on `images` must come to."""
    out = tmp_path_factory.mktemp("whole")
    arguments = [*map(str, defaults(matrix)), str(images), "--out", str(out)]
    return Whole(out, arguments, *finish(start_bulk(arguments)))


@pytest.fixture
def bulk(matrix: Release) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the command on shards of 8, with one process; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, limit: int | None = None) -> "subprocess.Popen[str]":
        started.append(start_bulk([*defaults(matrix), *arguments], limit=limit))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def defaults(release: Release) -> list[object]:
    """Small shards and passes, so that there are some of each."""
    return ["--release", release.folder, "--shard-size", 8, "--batch", 4, "--processes", 1]


def start_bulk(arguments: Sequence[object], *, limit: int | None = None) -> "subprocess.Popen[str]":
    """`simclr bulk` in a group of its own; `limit` caps the bytes of any file that it writes."""
    code = ("" if limit is None else LIMITED.format(limit)) + BULK
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", *, seconds: float = 600) -> tuple[int, str, str]:
    """Exit code, standard output and error."""
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def wait_for_shards(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    """Until so many shards are finished."""
    deadline = time.monotonic() + 600
    while len(list(out.glob("shard-*.json"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the command did not get going"
        time.sleep(0.005)


def content(out: Path) -> dict[str, bytes]:
    """Every file of a folder by its name."""
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}
