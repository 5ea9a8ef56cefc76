"""The ways to run a release's encoder on this machine: each format in each library that has it, and why some are not.

`benchmarks.serving.export` measures them.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tools.eager import eager_graph, embed
from core.machine.machine import cuda_devices
from core.releases.manifest import FORMATS, Release
from serving.inference.runtime import Device, Runtime, open_runtime

Runner = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # uint8 (N, S, S, 3) to unit-norm embeddings (N, D)

_NAMES = {"onnx": "fp32", "int8": "int8", "fp16": "fp16"}


def ways_of(release: Release, *, threads: int, device: Device = "auto") -> tuple[dict[str, Runner], dict[str, str]]:
    """Every way by name, the eager graph first, and the names of those that are left out with the reason."""
    ways: dict[str, Runner] = {"torch eager fp32": partial(embed, eager_graph(release))}
    skipped: dict[str, str] = {}
    gpu = device != "cpu" and cuda_devices() > 0
    for form, file in FORMATS.items():
        name = f"onnxruntime {_NAMES[form]}" if form in _NAMES else form
        if form not in release.forms:
            skipped[name] = f"the release holds no {form}"
        elif form == "fp16" and not gpu:
            skipped[name] = "half precision is for GPUs: a CPU computes it by way of float32"
        else:
            ways[name] = _runner(open_runtime(release.file(file), device=device, threads=threads))
    if importlib.util.find_spec("openvino") is None:
        skipped["openvino"] = "not installed (pip install openvino)"
        return ways, skipped
    return ways | _openvino(release, threads), skipped


def _openvino(release: Release, threads: int) -> dict[str, Runner]:
    forms = [form for form in ("onnx", "int8") if form in release.forms]
    ways = {f"openvino {_NAMES[form]}": _in_openvino(release.file(FORMATS[form]), "f32", threads) for form in forms}
    if "onnx" in forms:  # another precision than the file's, faster where a CPU has it
        ways["openvino bf16"] = _in_openvino(release.file(FORMATS["onnx"]), "bf16", threads)
    return ways


def _in_openvino(path: Path, precision: str, threads: int) -> Runner:
    openvino: Any = importlib.import_module("openvino")
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(model.create_infer_request().infer({"images": images})["embedding"], np.float32)

    return run


def _runner(runtime: Runtime) -> Runner:
    return lambda images: runtime(images).embedding
