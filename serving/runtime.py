"""The exported encoder, ready to run: ONNX Runtime or TorchScript, on the CPU or a GPU.

A runtime maps uint8 images (N, S, S, 3) to unit-norm embeddings (N, D) and, where the release has a linear
probe, logits (N, C). torch is imported only if a TorchScript file is asked for.
Left out: decoding images (`serving.images`), and choosing and verifying a release (`serving.manifest`).
"""

import ctypes
import logging
import os
import warnings
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Device = Literal["auto", "cpu", "cuda"]
_LOG = logging.getLogger(__name__)
_LARGEST_PASS = 64  # images in one forward pass: bounds memory, and is past where speed per image levels off


class Outputs(NamedTuple):
    """One forward pass: `embedding` float32 (N, D) of unit norm; `logits` float32 (N, C) or None."""

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32] | None


class Runtime(Protocol):
    """Anything that can run the graph."""

    name: str

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""


class OnnxRuntime:
    """encoder.onnx in ONNX Runtime."""

    def __init__(self, path: Path, *, cuda: bool, threads: int, gpu: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[object] = ["CPUExecutionProvider"]
        if cuda:
            onnxruntime.preload_dlls()  # CUDA and cuDNN from the packages that torch brings
            # TF32 would keep 10 bits of each number: a GPU must store what a CPU would find again
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": gpu, "use_tf32": 0}))
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if cuda and "CUDAExecutionProvider" not in self._session.get_providers():
            _LOG.warning("there is a GPU, but ONNX Runtime could not use it: running on the CPU")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.name = f"onnxruntime {onnxruntime.__version__}, {self._session.get_providers()[0]}"

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""
        found = dict(zip(self._outputs, self._session.run(None, {"images": images}), strict=True))
        return Outputs(found["embedding"], found.get("logits"))


class TorchScriptRuntime:
    """encoder.pt in torch."""

    def __init__(self, path: Path, *, cuda: bool, threads: int, gpu: int = 0) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch = torch
        self._device = torch.device(f"cuda:{gpu}" if cuda else "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript; our users ask for it
            self._module = torch.jit.load(str(path), map_location=self._device)
        self.name = f"torchscript {torch.__version__}, {self._device}"

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""
        with self._torch.inference_mode():
            found = self._module(self._torch.from_numpy(images).to(self._device))
        embedding, *logits = (tensor.cpu().numpy() for tensor in found)
        return Outputs(embedding, logits[0] if logits else None)


def open_runtime(path: Path, *, device: Device = "auto", gpu: int = 0, threads: int | None = None) -> Runtime:
    """Open an exported graph: `.onnx` in ONNX Runtime, `.pt` in torch.

    `device` auto takes the GPU where there is one. `threads` is the number of CPU threads of one forward
    pass, by default every core that this process may use.
    """
    kinds: dict[str, type[OnnxRuntime | TorchScriptRuntime]] = {".onnx": OnnxRuntime, ".pt": TorchScriptRuntime}
    if path.suffix not in kinds:
        raise ValueError(f"path is {path}; a graph ends in one of {', '.join(kinds)}")
    cuda = cuda_devices() > gpu if device == "auto" else device == "cuda"
    runtime: Runtime = kinds[path.suffix](path, cuda=cuda, threads=threads or usable_cores(), gpu=gpu)
    _LOG.info("%s runs in %s", path.name, runtime.name)
    return runtime


def run_in_passes(runtime: Runtime, images: NDArray[np.uint8]) -> Outputs:
    """Run any number of images (N >= 1), at most 64 in one pass."""
    parts = [runtime(images[at : at + _LARGEST_PASS]) for at in range(0, len(images), _LARGEST_PASS)]
    if len(parts) == 1:
        return parts[0]
    logits = [part.logits for part in parts if part.logits is not None]
    return Outputs(np.concatenate([part.embedding for part in parts]), np.concatenate(logits) if logits else None)


def usable_cores() -> int:
    """Cores this process may run on: the affinity mask, not the machine's count."""
    return len(os.sched_getaffinity(0))


def cuda_devices() -> int:
    """The number of CUDA GPUs, asked of the driver itself: no torch, no failing provider."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
