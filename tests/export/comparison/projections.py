"""Releases with a real graph that needs no training: pixels, a projection, the L2 norm and a probe, as ONNX.

What such an encoder is worth is known beforehand: digits projected on their principal components keep their
neighbours, and the same numbers shuffled keep fewer.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from core.releases.manifest import FILE_NAME, FORMATS, SCHEMA, InputContract, Manifest, Release, entry_of, to_json
from export.publishing.probe_edit import edit_onnx
from training.data.dataset import Dataset
from training.measures.probe import Probe, fit_probe

_SQUARES = 20

Matrix = NDArray[np.float32]


def principal(data: Dataset, dimensions: int) -> Matrix:
    """The principal components (P, D) of the train images' pixels."""
    pixels = _flat(data, data.rows("train"))
    return np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)[2][:dimensions].T.astype(np.float32)


def shuffled(matrix: Matrix) -> Matrix:
    """The same numbers in another order."""
    return np.random.default_rng(0).permutation(matrix.ravel()).reshape(matrix.shape)


def write_release(folder: Path, data: Dataset, matrix: Matrix, *, size: int = 0, waste: int = 0) -> Release:
    """A release whose embedding is the projection by `matrix` (P, D) of pixels less their mean, with a fitted probe.

    `size` is the side that it takes, by default the data's; `waste` multiplies by a square matrix so wide on the way,
    which costs time and changes nothing.
    """
    folder.mkdir(parents=True)
    size = size or data.image_size
    mean = _flat(data, data.rows("train")).mean(axis=0).astype(np.float32)
    plain = folder / FORMATS["onnx"]
    onnx.save(
        _graph(matrix, mean if len(mean) == len(matrix) else np.full(len(matrix), 0.2, np.float32), size, waste),
        str(plain),
    )
    classes = None
    if data.classes is not None and size == data.image_size:
        probe = _probe(data, matrix, mean)
        classes = probe.classes
        edit_onnx(plain, plain, probe)
    manifest = Manifest(
        schema=SCHEMA,
        name="digits",
        version=int(folder.name),
        created="2026-01-01T00:00:00+00:00",
        architecture="projection",
        embedding_dim=matrix.shape[1],
        input=InputContract(size=size),
        classes=classes,
        files={path.name: entry_of(path) for path in sorted(folder.iterdir())},
        parity={"onnx": {"embedding_difference": 0.0}},
        metrics={},
        lineage={"note": str(np.abs(matrix).sum()) + str(waste)},
    )
    (folder / FILE_NAME).write_bytes(to_json(manifest))
    return Release(folder)


def _graph(matrix: Matrix, mean: Matrix, size: int, waste: int) -> onnx.ModelProto:
    stored: dict[str, np.ndarray] = {
        "flat": np.array([0, -1], np.int64),
        "scale": np.array(255, np.float32),
        "mean": mean,
        "matrix": matrix,
        "axes": np.array([1], np.int64),
        "tiny": np.array(1e-12, np.float32),
    }
    steps: list[tuple[str, Sequence[str], str]] = [
        ("Div", ("pixels", "scale"), "scaled"),
        ("Reshape", ("scaled", "flat"), "rows"),
        ("Sub", ("rows", "mean"), "centred"),
        ("MatMul", ("centred", "matrix"), "projected"),
    ]
    last = "projected"
    if waste:
        stored["wide"] = np.random.default_rng(0).random((matrix.shape[1], waste), np.float32)
        stored["square"] = np.random.default_rng(0).random((waste, waste), np.float32)
        stored["nothing"] = np.zeros((waste, matrix.shape[1]), np.float32)
        steps += [("MatMul", ("projected", "wide"), "w0")]
        steps += [("MatMul", (f"w{number}", "square"), f"w{number + 1}") for number in range(_SQUARES)]
        steps += [
            ("Sigmoid", (f"w{_SQUARES}",), "bounded"),
            ("MatMul", ("bounded", "nothing"), "zeros"),
            ("Add", ("projected", "zeros"), "same"),
        ]
        last = "same"
    nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node(kind, list(given), [made]) for kind, given, made in steps]
    nodes.append(helper.make_node("ReduceL2", [last, "axes"], ["long"], keepdims=1))
    nodes.append(helper.make_node("Max", ["long", "tiny"], ["norm"]))
    nodes.append(helper.make_node("Div", [last, "norm"], ["embedding"]))
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", matrix.shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _probe(data: Dataset, matrix: Matrix, mean: Matrix) -> Probe:
    rows = data.rows("train")
    h = ((_flat(data, rows) - mean) @ matrix).astype(np.float32)
    h /= np.linalg.norm(h, axis=1, keepdims=True) + 1e-12
    assert data.classes is not None
    nobody = (h[:0], np.empty(0, np.int64))
    return fit_probe((h, data.labels_of(rows)), nobody, data.classes, grid=(0.1,), quiet=True).probe


def _flat(data: Dataset, rows: NDArray[np.int64]) -> Matrix:
    return (data.images[rows].reshape(len(rows), -1) / 255).astype(np.float32)
