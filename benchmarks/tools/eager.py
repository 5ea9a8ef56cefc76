"""A release's encoder in plain torch, without any exported format: rebuilt from its weights.

What every format is compared with, and what `benchmarks.serving.torch_server` serves.
"""

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from core.releases.manifest import Release
from export.formats.graph import ServingGraph
from training.measures.probe import Probe
from training.model.encoder import build_encoder
from training.recipe.config import from_dict

WEIGHTS = "weights.safetensors"


def eager_graph(release: Release) -> ServingGraph:
    """The release's graph, in float32 on the CPU; raises `ManifestError` if its weights do not verify."""
    state = safetensors.torch.load_file(release.file(WEIGHTS))
    config = from_dict(release.manifest.lineage["config"])
    mean, std = (tuple(float(value) for value in state[name].flatten()) for name in ("mean", "std"))
    encoder = build_encoder(config.encoder, seed=None)
    graph = ServingGraph(encoder, mean=mean, std=std, probe=_probe(release, state))
    graph.load_state_dict(state)
    return graph


def embed(graph: ServingGraph, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Unit-norm embeddings (N, D) of uint8 images (N, S, S, 3), in one pass."""
    with torch.inference_mode():
        found: NDArray[np.float32] = graph(torch.from_numpy(images))[0].numpy()
    return found


def _probe(release: Release, state: dict[str, torch.Tensor]) -> Probe | None:
    if "probe.weight" not in state:
        return None
    weight, bias = (state[f"probe.{name}"].numpy() for name in ("weight", "bias"))
    return Probe(weight, bias, release.manifest.classes or ())
