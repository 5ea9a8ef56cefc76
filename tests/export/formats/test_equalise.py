"""Scales moved between convolutions: the function stays, the ranges come closer, and forks are left alone."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.formats.equalise import equalise, find_pairs, scales


def write_network(path: Path, *, fork: bool = False) -> None:
    """Two 3x3 convolutions with a ReLU between on uint8 images; with `fork` the ReLU is read twice."""
    torch.manual_seed(0)
    first, second = torch.randn(6, 3, 3, 3) * torch.logspace(-2, 1, 6).view(-1, 1, 1, 1), torch.randn(4, 6, 3, 3)
    weights = {"w1": first, "b1": torch.randn(6), "w2": second, "b2": torch.randn(4)}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["pixels", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean" if not fork else "Identity", ["c2"], ["embedding"]),
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)]
    if fork:
        outputs.append(helper.make_tensor_value_info("r1", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3])],
        outputs,
        [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def run(path: Path, images: np.ndarray, output: str = "embedding") -> np.ndarray:
    model = onnx.load(str(path))
    if output not in [one.name for one in model.graph.output]:
        model.graph.output.append(helper.make_empty_tensor_value_info(output))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run([output], {"images": images})[0]
    return found


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)


def test_the_function_stays_and_the_ranges_come_closer(tmp_path: Path, images: np.ndarray) -> None:
    write_network(tmp_path / "plain.onnx")
    equalise(tmp_path / "plain.onnx", tmp_path / "even.onnx", images)
    before, after = (run(tmp_path / name, images) for name in ("plain.onnx", "even.onnx"))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-3 * np.abs(before).max())
    spread = [
        np.ptp(np.log(run(tmp_path / name, images, "r1").max(axis=(0, 2, 3)))) for name in ("plain.onnx", "even.onnx")
    ]
    assert spread[1] < 0.7 * spread[0]


def test_what_is_read_elsewhere_too_is_left_alone(tmp_path: Path) -> None:
    write_network(tmp_path / "fork.onnx", fork=True)
    assert find_pairs(onnx.load(str(tmp_path / "fork.onnx")).graph) == []
    write_network(tmp_path / "plain.onnx")
    assert len(find_pairs(onnx.load(str(tmp_path / "plain.onnx")).graph)) == 1


def test_scales_are_the_square_root_of_the_ranges_ratio_but_for_a_common_factor() -> None:
    activation = np.array([4.0, 1.0, 0.0], np.float32)
    weight = np.ones((2, 3, 1, 1), np.float32)
    weight[:, 1] = 4
    found = scales(activation, weight)
    assert found[0] / found[1] == pytest.approx(np.sqrt(4 / 1) / np.sqrt(1 / 4))
    assert found[0] * found[1] == pytest.approx(1)
    assert found[2] == 1
