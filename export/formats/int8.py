"""The ONNX graph in int8: static quantisation (QDQ, per-channel weights) by ONNX Runtime's own tool.

Convolutions become int8. The additions of their branches stay float32: rounding the residual stream at every block
would lose more than all convolutions do, and gain no time. So do scaling, normalisation, average pool, L2 norm and
probe, whose errors would reach every number of the embedding. Ranges are calibrated on real images, once for each
method; after that, variants that leave layers out take seconds. `export.formats.int8_search` says which are tried.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from core.command_line.endings import counted
from export.formats.equalise import equalise

Method = Literal["percentile", "minmax", "entropy"]
_METHODS = {
    "percentile": CalibrationMethod.Percentile,
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
}
_QUANTISED = ["Conv", "MaxPool"]
_PERCENTILE = 99.999
_PASS = 16  # images at a time: all their activations are in memory at once


@dataclass(frozen=True)
class Variant:
    """One way to quantise. `excluded` names convolutions that stay float32; `equalised` balances channels first
    (`export.formats.equalise`)."""

    method: Method = "percentile"
    excluded: tuple[str, ...] = ()
    equalised: bool = False

    def __str__(self) -> str:
        parts = [f"{self.method} calibration"]
        parts += ["equalised channels"] if self.equalised else []
        parts += [counted(len(self.excluded), "layer") + " in float32"] if self.excluded else []
        return ", ".join(parts)


class Quantiser:
    """Writes variants of one ONNX file; computes what they share once, and keeps it in `folder`."""

    def __init__(self, source: Path, calibration: NDArray[np.uint8], folder: Path) -> None:
        """`calibration` is uint8 (N, S, S, 3), N >= 1: real images, none of which judges the result."""
        if len(calibration) == 0:
            raise ValueError("calibration is empty; int8 needs at least one real image")
        self._calibration = calibration
        self.folder = folder
        self._prepared = folder / "prepared.onnx"
        quant_pre_process(str(source), str(self._prepared), skip_symbolic_shape=True)  # folds BatchNorm away
        self.blocks = _blocks(_nodes(self._prepared))
        self.convolutions = [name for block in self.blocks for name in block]

    def write(self, variant: Variant, target: Path) -> None:
        """Quantise as `variant` says; raises ValueError if it excludes what is no convolution there."""
        unknown = sorted(set(variant.excluded) - set(self.convolutions))
        if unknown:
            raise ValueError(f"excluded names {', '.join(unknown)}; no such convolution is in the graph")
        with _quiet():
            quantize_static(
                str(self._equalised() if variant.equalised else self._prepared),
                str(target),
                _Reader(self._calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(variant.excluded),
                calibrate_method=_METHODS[variant.method],
                extra_options={"CalibPercentile": _PERCENTILE, "CalibStridedMinMax": 1},
                calibration_cache_path=self.folder / f"{variant.method}-{variant.equalised}.json",
            )

    def _equalised(self) -> Path:
        path = self.folder / "equalised.onnx"
        if not path.exists():
            equalise(self._prepared, path, self._calibration)
        return path


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images as ONNX Runtime's tool asks for them, a pass at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._passes = [images[at : at + _PASS] for at in range(0, len(images), _PASS)]
        self._next = iter(self._passes)

    def __len__(self) -> int:
        return len(self._passes)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._passes[start_index:end_index])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        images = next(self._next, None)
        return None if images is None else {"images": images}


def _nodes(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(str(path), load_external_data=False).graph.node)


def _blocks(nodes: Sequence[onnx.NodeProto]) -> list[tuple[str, ...]]:
    """The names of the convolutions in their order, grouped by the additions between them."""
    blocks: list[tuple[str, ...]] = []
    current: list[str] = []
    for node in nodes:
        if node.op_type == "Conv":
            current.append(node.name)
        elif node.op_type == "Add" and current:
            blocks.append(tuple(current))
            current = []
    return [*blocks, tuple(current)] if current else blocks


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tool, which prints its histograms and advises what has been done already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
