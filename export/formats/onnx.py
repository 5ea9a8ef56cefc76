"""The graph as ONNX, in one file, with the number of images free."""

import warnings
from pathlib import Path

import torch

from export.formats.graph import ServingGraph

OPSET = 20


def write_onnx(graph: ServingGraph, path: Path, *, image_size: int) -> None:
    """Export through torch.export, and run the ONNX checker on the result, which raises what is wrong with it."""
    import onnx

    example = torch.randint(0, 256, (2, image_size, image_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations, which no user can act on
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=graph.output_names,
            dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
            external_data=False,
            verbose=False,
        )
    onnx.checker.check_model(str(path))
