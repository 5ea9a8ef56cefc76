"""The exported encoder, ready to run: one interface over ONNX Runtime and TorchScript, on CPU or GPU.

A runtime maps uint8 images (N, S, S, 3) to unit-norm embeddings (N, D) and, where the release has a linear
probe, logits (N, C). torch is imported only if a TorchScript file is asked for.
"""

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from core.machine.machine import cuda_devices, usable_cores
from serving.inference.backends import OnnxBackend, Outputs, Place, TorchScriptBackend

__all__ = ["Device", "Outputs", "Runtime", "images_of_pass", "open_runtime", "run_in_passes"]

Device = Literal["auto", "cpu", "cuda"]
_WIDEST = 8  # threads: one image is not enough work for more
_LARGEST_PASS = 64  # images in one forward pass: bounds memory, and is past where speed per image levels off
_CPU_PASS = 32  # the same where a CPU runs it: small images are not faster beyond
_CPU_PASS_PIXELS = 4 * 224 * 224  # of all images of a pass together: with more, activations leave the caches


class Runtime(Protocol):
    """Anything that can run the graph."""

    name: str

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Run uint8 images of shape (N, S, S, 3)."""


def open_runtime(
    path: Path,
    *,
    device: Device = "auto",
    gpu: int = 0,
    threads: int | None = None,
    lock: Path | None = None,
) -> Runtime:
    """Open an exported graph: `.onnx` in ONNX Runtime, `.pt` in torch.

    `device` auto takes the GPU where there is one. `threads` is the number of CPU threads of one forward
    pass, by default every core that this process may use. For `lock` see `serving.inference.backends.Place`.
    """
    cuda = cuda_devices() > gpu if device == "auto" else device == "cuda"
    cores = usable_cores()
    place = Place(gpu if cuda else None, threads or cores, min(cores, _WIDEST), lock)
    return _open(path, place)


def images_of_pass(size: int, *, gpu: bool = False) -> int:
    """How many images of `size` pixels a side a pass should have, when many are to be embedded."""
    return _LARGEST_PASS if gpu else max(1, min(_CPU_PASS, _CPU_PASS_PIXELS // size**2))


def run_in_passes(runtime: Runtime, images: NDArray[np.uint8]) -> Outputs:
    """Run any number of images (N >= 1), at most 64 in one pass."""
    parts = [runtime(images[at : at + _LARGEST_PASS]) for at in range(0, len(images), _LARGEST_PASS)]
    if len(parts) == 1:
        return parts[0]
    logits = [part.logits for part in parts if part.logits is not None]
    return Outputs(np.concatenate([part.embedding for part in parts]), np.concatenate(logits) if logits else None)


def _open(path: Path, place: Place) -> Runtime:
    kinds: dict[str, type[OnnxBackend | TorchScriptBackend]] = {".onnx": OnnxBackend, ".pt": TorchScriptBackend}
    if path.suffix not in kinds:
        raise ValueError(f"path is {path}; a graph ends in one of {', '.join(kinds)}")
    return kinds[path.suffix](path, place)
