"""Every file of the graph that a release holds: written, measured on real images, and left out where it falls short.

Exact formats (ONNX and TorchScript in float32) must agree with the eager graph, or nothing is published. Half
precision and int8 are for speed: if one falls short, the release goes without it and its manifest says why.
"""

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from core.releases.manifest import FORMATS, MEDIANS
from export.formats.fidelity import FIDELITY, embed
from export.formats.graph import ServingGraph
from export.formats.int8 import Quantiser
from export.formats.int8_search import search
from export.formats.onnx import write_onnx
from export.formats.parity import HALF, ParityError, check, eager
from export.formats.real_images import RealImages
from export.formats.torchscript import write_torchscript

Int8 = Literal["none", "plain", "search"]
"""How much work goes into an int8 file: none, the variants that take seconds each, or every one there is."""

_PARITY_IMAGES = 256


@dataclass(frozen=True)
class Measured:
    """What was measured, by format: the `parity` of exact files, and the verdicts on approximate ones (`gates`)."""

    parity: dict[str, Any]
    gates: dict[str, Any] = field(default_factory=dict)


def write_formats(graph: ServingGraph, folder: Path, images: RealImages, *, int8: Int8 = "plain") -> Measured:
    """Write the graph in every format into `folder`; int8 with as much work as `int8` says.

    Raises `ParityError` if an exact format answers otherwise than the graph.
    """
    size = images.queries.shape[1]
    np.save(folder / MEDIANS, np.median(eager(graph, images.calibration).embedding, axis=0).astype(np.float32))
    files = {form: folder / file for form, file in FORMATS.items()}
    few = images.queries[:_PARITY_IMAGES]
    with tqdm(total=4 if int8 == "none" else 5, desc="TorchScript", unit=" steps") as bar:

        def step(name: str) -> None:
            bar.update()
            bar.set_description(name)

        write_torchscript(graph, files["torchscript"], image_size=size)
        step("ONNX")
        write_onnx(graph, files["onnx"], image_size=size)
        step("parity on real images")
        parity = check(graph, {form: files[form] for form in ("onnx", "torchscript")}, few)
        step("half precision")
        gates = {"fp16": _half(graph, files, images)}
        bar.update()
        if int8 != "none":
            bar.set_description("int8 and its fidelity")
            gates["int8"] = _int8(graph, files, images, thorough=int8 == "search")
            bar.update()
    return Measured(parity, gates)


def _half(graph: ServingGraph, files: dict[str, Path], images: RealImages) -> dict[str, Any]:
    write_onnx(graph.in_half_precision(), files["fp16"], image_size=images.queries.shape[1])
    try:
        figures = check(graph, {"fp16": files["fp16"]}, images.queries[:_PARITY_IMAGES], bounds=HALF)["fp16"]
    except ParityError as error:
        files["fp16"].unlink()
        return {"passed": False, "failed": [str(error)]}
    return {"passed": True, "figures": figures, "failed": []}


def _int8(graph: ServingGraph, files: dict[str, Path], images: RealImages, *, thorough: bool) -> dict[str, Any]:
    exact = embed(partial(eager, graph), images)
    with tempfile.TemporaryDirectory(dir=files["int8"].parent, prefix=".int8-") as work:
        quantiser = Quantiser(files["onnx"], images.calibration, Path(work))
        found = search(quantiser, files["int8"], images, exact, thorough=thorough)
    if not found.passed:
        files["int8"].unlink()
    return found.to_json(FIDELITY)
