"""Two libraries that run the exported graph: ONNX Runtime, and torch for TorchScript.

Each is imported only when it is used. All map uint8 images (N, S, S, 3) to unit-norm embeddings (N, D) and,
where the release has a linear probe, logits (N, C). `serving.inference.runtime` has the interface that they share.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.files.locks import give, open_lock_file, take
from core.machine.machine import tensorrt_here

_LOG = logging.getLogger(__name__)


class Outputs(NamedTuple):
    """One forward pass: `embedding` float32 (N, D) of unit norm; `logits` float32 (N, C) or None."""

    embedding: NDArray[np.float32]
    logits: NDArray[np.float32] | None


@dataclass(frozen=True)
class Place:
    """Where a graph runs: on a GPU by its number, or (None) on this many CPU threads.

    With a `lock`, a pass of one image takes `wide_threads` if no other process that shares the lock is running a pass.
    """

    gpu: int | None = None
    threads: int = 1
    wide_threads: int = 0
    lock: Path | None = None


class CoresLock:
    """Which of a server's workers may use every core, so that a lone request need not wait for one while others idle.

    Each worker has its share of the cores. One that begins a pass while no other runs takes the lock, and may spread
    the pass over all cores; whoever comes meanwhile keeps to its share.
    """

    def __init__(self, path: Path) -> None:
        self._file = open_lock_file(path)

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock if nobody else does; yields whether that is so."""
        alone = take(self._file, wait=False)
        try:
            yield alone
        finally:
            if alone:
                give(self._file)


class OnnxBackend:
    """An .onnx file in ONNX Runtime."""

    def __init__(self, path: Path, place: Place) -> None:
        import onnxruntime

        self._runtime = onnxruntime
        self._gpu = place.gpu
        if place.gpu is not None:
            onnxruntime.preload_dlls()  # CUDA and cuDNN from the packages that torch brings
        self._session = _session(path, place, place.threads)
        self._wide: Any = None
        if place.gpu is None and place.lock is not None and place.wide_threads > place.threads:
            self._wide = _session(path, place, place.wide_threads)
            self._lock = CoresLock(place.lock)
        provider = self._session.get_providers()[0]
        if place.gpu is not None and provider == "CPUExecutionProvider":
            _LOG.warning("there is a GPU, but ONNX Runtime can't use it: running on the CPU")
            self._gpu = None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.name = f"onnxruntime {onnxruntime.__version__}, {provider}, {path.name}"

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""
        run = self._run if self._gpu is None else self._run_bound
        found = dict(zip(self._outputs, run(images), strict=True))
        return Outputs(found["embedding"], found.get("logits"))

    def _run(self, images: NDArray[np.uint8]) -> list[Any]:
        if self._wide is None:
            return self._run_in(self._session, images)
        with self._lock.held() as alone:
            return self._run_in(self._wide if alone and len(images) == 1 else self._session, images)

    @staticmethod
    def _run_in(session: Any, images: NDArray[np.uint8]) -> list[Any]:
        found: list[Any] = session.run(None, {"images": images})
        return found

    def _run_bound(self, images: NDArray[np.uint8], device: str = "cuda") -> list[Any]:
        """With IO binding: one copy to the GPU, one back, none in between."""
        number = self._gpu or 0
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("images", self._runtime.OrtValue.ortvalue_from_numpy(images, device, number))
        for name in self._outputs:
            binding.bind_output(name, device, number)
        self._session.run_with_iobinding(binding)
        found: list[Any] = binding.copy_outputs_to_cpu()
        return found


class TorchScriptBackend:
    """An encoder.pt in torch."""

    def __init__(self, path: Path, place: Place) -> None:
        import torch

        torch.set_num_threads(place.threads)
        self._torch = torch
        self._device = torch.device("cpu" if place.gpu is None else f"cuda:{place.gpu}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript, but users ask for it
            self._module = torch.jit.load(str(path), map_location=self._device)
        self.name = f"torchscript {torch.__version__}, {self._device}"

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""
        with self._torch.inference_mode():
            found = self._module(self._torch.from_numpy(images).to(self._device))
        embedding, *logits = (tensor.cpu().numpy() for tensor in found)
        return Outputs(embedding, logits[0] if logits else None)


def _session(path: Path, place: Place, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # threads spin while a pass runs, and leave the cores to others between passes
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=_providers(path, place))


def _providers(path: Path, place: Place) -> list[object]:
    """ONNX Runtime's providers, the best first; each takes what those before it can't run."""
    if place.gpu is None:
        return ["CPUExecutionProvider"]
    # TF32 would keep 10 bits of each number, but a GPU must give the embeddings that a CPU gives
    providers: list[object] = [("CUDAExecutionProvider", {"device_id": place.gpu, "use_tf32": 0})]
    if tensorrt_here():
        options = {
            "device_id": place.gpu,
            "trt_fp16_enable": ".fp16." in path.name,
            "trt_engine_cache_enable": True,  # building an engine takes minutes
            "trt_engine_cache_path": str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tensorrt"),
        }
        providers.insert(0, ("TensorrtExecutionProvider", options))
    return [*providers, "CPUExecutionProvider"]
