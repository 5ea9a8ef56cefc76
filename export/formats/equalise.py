"""Channels of similar range: scales moved from one convolution into the next, which leaves the function as it was.

An int8 tensor has one scale for all channels, so a channel with small numbers is left with few steps. Where a ReLU
alone stands between two convolutions, channel c of the first may be divided by any s_c > 0 if the second multiplies
its input channel c by s_c, as ReLU(x / s) = ReLU(x) / s (Nagel et al. 2019, arXiv 1906.04721, section 4.1). The paper
balances the ranges of both weights; ours have a scale for each output channel anyway, so the ranges of activations,
measured on images, are balanced here against the weights that follow (as in SmoothQuant, arXiv 2211.10438, equation 4,
with alpha 0.5).
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_MOST = 16.0  # a scale's bound either way, so that channels silent in calibration stay within reason


class ConvPair(NamedTuple):
    """Two convolutions with only a ReLU between them, and that ReLU's output."""

    first: onnx.NodeProto
    second: onnx.NodeProto
    between: str


def equalise(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
    """Write `source` with the ranges of its activations balanced, as measured on `images`, uint8 (N, S, S, 3)."""
    model = onnx.load(str(source))
    pairs = find_pairs(model.graph)
    ranges = _ranges(model, [pair.between for pair in pairs], images)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for pair in pairs:
        _balance(pair, ranges[pair.between], weights)
    onnx.save(model, str(target))


def find_pairs(graph: onnx.GraphProto) -> list[ConvPair]:
    """Every pair of convolutions that may be rescaled: ungrouped, and nothing else reads what is between them."""
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(output.name for output in graph.output)
    by_output = {name: node for node in graph.node for name in node.output}
    shared = {name for name, count in readers.items() if count > 1}
    pairs = []
    for second in graph.node:
        if second.op_type != "Conv" or _groups(second) != 1:
            continue
        relu = by_output.get(second.input[0])
        first = by_output.get(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if relu is None or first is None or first.op_type != "Conv":
            continue
        touched = {relu.input[0], relu.output[0], *first.input[1:], second.input[1]}
        if not touched & shared:
            pairs.append(ConvPair(first, second, relu.output[0]))
    return pairs


def scales(activation: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each channel is divided by: sqrt(range of activation / range of weight), with a geometric mean of 1.

    `activation` (C,) holds the largest value of each channel, `weight` (O, C, kh, kw) the convolution that reads it.
    A channel that is always zero keeps its scale.
    """
    reach = np.abs(weight).max(axis=(0, 2, 3))
    alive = (activation > 0) & (reach > 0)
    found = np.ones_like(activation)
    if alive.any():
        ratio = np.sqrt(activation[alive] / reach[alive])
        found[alive] = np.clip(ratio / np.exp(np.log(ratio).mean()), 1 / _MOST, _MOST)
    return found


def _balance(pair: ConvPair, activation: NDArray[np.float32], weights: dict[str, onnx.TensorProto]) -> None:
    first, second = (numpy_helper.to_array(weights[node.input[1]]) for node in (pair.first, pair.second))
    scale = scales(activation, second)
    _replace(weights[pair.first.input[1]], first / scale[:, None, None, None])
    _replace(weights[pair.second.input[1]], second * scale[None, :, None, None])
    if len(pair.first.input) == 3:
        bias = weights[pair.first.input[2]]
        _replace(bias, numpy_helper.to_array(bias) / scale)


def _replace(tensor: onnx.TensorProto, values: NDArray[np.floating[Any]]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def _ranges(model: onnx.ModelProto, names: list[str], images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The largest value of each channel (C,) of the tensors `names`, over all images."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    found: dict[str, NDArray[np.float32]] = {}
    for at in range(0, len(images), 16):
        for name, values in zip(names, session.run(names, {"images": images[at : at + 16]}), strict=True):
            largest = values.max(axis=(0, 2, 3))
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
