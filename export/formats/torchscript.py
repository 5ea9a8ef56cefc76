"""The graph as TorchScript: runs in torch without this project's code, in Python or C++."""

import warnings
from pathlib import Path

import torch

from export.formats.graph import ServingGraph


def write_torchscript(graph: ServingGraph, path: Path, *, image_size: int) -> None:
    """Trace, freeze and save the graph; the number of images stays free."""
    example = torch.randint(0, 256, (2, image_size, image_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch deprecates TorchScript, but our users ask for it
        traced = torch.jit.trace(graph, (example,), check_trace=False)  # export.formats.parity checks, on real images
        torch.jit.freeze(traced).save(str(path))
