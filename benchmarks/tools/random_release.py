"""A release of random weights, to measure speed with and nothing else: what an image costs does not depend on weights.

The BatchNorm statistics are those of real images, so that the numbers that pass through the graph are of ordinary size;
int8 is written without being judged. Such a release must never be served to anyone.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.tools.eager import WEIGHTS, embed
from core.releases.manifest import (
    FILE_NAME,
    FORMATS,
    MEDIANS,
    SCHEMA,
    InputContract,
    Manifest,
    Release,
    entry_of,
    to_json,
)
from export.formats.graph import ServingGraph
from export.formats.int8 import Quantiser, Variant
from export.formats.onnx import write_onnx
from export.formats.torchscript import write_torchscript
from training.model.encoder import Encoder, build_encoder, freeze
from training.recipe.config import Architecture, EncoderConfig, PretrainConfig, Stem, to_dict

NAME = "random-weights"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_JUDGEMENT = "not judged: random weights, for measuring speed only"


def write_random_release(
    folder: Path, images: NDArray[np.uint8], *, architecture: Architecture, stem: Stem = "auto"
) -> Release:
    """A release in `folder`, which must not exist, for images like these: real ones, uint8 (N, S, S, 3)."""
    size = images.shape[1]
    config = PretrainConfig(encoder=EncoderConfig(architecture, stem=stem, image_size=size, zero_init_residual=False))
    graph = ServingGraph(_settled(build_encoder(config.encoder), images), mean=_MEAN, std=_STD)
    folder.mkdir(parents=True)
    _write_files(graph, folder, images=images)
    manifest = Manifest(
        schema=SCHEMA,
        name=NAME,
        version=size,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        architecture=architecture,
        embedding_dim=graph.embedding_dim,
        input=InputContract(size=size),
        classes=None,
        files={path.name: entry_of(path) for path in sorted(folder.iterdir())},
        parity={},
        gates={"int8": {"passed": False, "failed": [_JUDGEMENT]}},
        metrics={},
        lineage={"config": to_dict(config)},
    )
    (folder / FILE_NAME).write_bytes(to_json(manifest))
    return Release(folder)


def _settled(encoder: Encoder, images: NDArray[np.uint8]) -> Encoder:
    """The encoder, frozen, with the BatchNorm statistics of `images`."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # an average over all that is seen
    with torch.no_grad():
        encoder.train()((pixels - mean) / std)
    return freeze(encoder)


def _write_files(graph: ServingGraph, folder: Path, *, images: NDArray[np.uint8]) -> None:
    size = images.shape[1]
    np.save(folder / MEDIANS, np.median(embed(graph, images), axis=0).astype(np.float32))
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in graph.state_dict().items()}, folder / WEIGHTS
    )
    write_torchscript(graph, folder / FORMATS["torchscript"], image_size=size)
    write_onnx(graph, folder / FORMATS["onnx"], image_size=size)
    with tempfile.TemporaryDirectory() as work:
        quantiser = Quantiser(folder / FORMATS["onnx"], images, Path(work))
        quantiser.write(Variant("minmax"), folder / FORMATS["int8"])
