"""A release's files with another probe, in which every number of the encoder, and so every embedding, is the same.

The probe is one product at the end of each graph, in float32 in every format (`export.formats.int8` leaves it so). In
ONNX whatever only the old logits need is cut off, and a new Gemm put behind the embedding; TorchScript is wrapped
around the old module, and freezing it drops the old probe. No file is exported anew: other versions of the libraries,
or another machine, would round the encoder's numbers differently.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from training.measures.probe import Probe

_WEIGHT, _BIAS = "probe.weight", "probe.bias"


def edit_onnx(source: Path, target: Path, probe: Probe) -> None:
    """Write the graph with this probe, whatever probe it had; raises ValueError if the graph has no embedding."""
    model = onnx.load(str(source))
    graph = model.graph
    outputs = {output.name: output for output in graph.output}
    if "embedding" not in outputs:
        raise ValueError(f"{source} has no output embedding; it is no exported encoder")
    if "logits" in outputs:
        graph.output.remove(outputs["logits"])
    _prune(graph)
    weight, bias = np.ascontiguousarray(probe.weight), np.ascontiguousarray(probe.bias)
    graph.initializer.extend([numpy_helper.from_array(weight, _WEIGHT), numpy_helper.from_array(bias, _BIAS)])
    graph.node.append(helper.make_node("Gemm", ["embedding", _WEIGHT, _BIAS], ["logits"], name="probe", transB=1))
    count = outputs["embedding"].type.tensor_type.shape.dim[0]
    shape = [count.dim_param or count.dim_value, len(probe.classes)]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def edit_torchscript(source: Path, target: Path, probe: Probe) -> None:
    """Write the TorchScript module with this probe, whatever probe it had."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript, but our users ask for it
        encoder = torch.jit.load(str(source), map_location="cpu")
        whole = torch.jit.script(_WithProbe(encoder, torch.tensor(probe.weight), torch.tensor(probe.bias)).eval())
        torch.jit.freeze(whole).save(str(target))


def edit_weights(source: Path, target: Path, probe: Probe) -> None:
    """Write the weights' safetensors with this probe."""
    tensors = load_file(source)
    save_file(tensors | {_WEIGHT: np.ascontiguousarray(probe.weight), _BIAS: probe.bias}, target)


class _WithProbe(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, encoder: torch.jit.ScriptModule, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.encoder(images)[0]
        return embedding, functional.linear(embedding, self.weight, self.bias)


def _prune(graph: onnx.GraphProto) -> None:
    """Remove what no output needs: first nodes, from the last to the first, then their weights and shapes."""
    needed = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for stored in (graph.initializer, graph.value_info):
        for entry in [entry for entry in stored if entry.name not in needed]:
            stored.remove(entry)
