"""Find an int8 file that is faithful enough: the plainest variant first, and what to blame if none is.

The plain variants have every convolution in int8, or all but the first. A thorough search goes on with channels of
similar range, with other calibration methods, with the last convolution in float32, and with those that cost most. The
first variant that passes is kept, as each later one is slower or less plain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.formats.fidelity import FIDELITY, FidelityBounds, RetrievalSet, Verdict, embed, judge
from export.formats.int8 import Quantiser, Variant
from export.formats.real_images import RealImages
from serving.inference.runtime import open_runtime, run_in_passes

WORST_LAYERS = 8
_COST_IMAGES = 64
_WORST_BLOCKS = 3


@dataclass(frozen=True)
class Attempt:
    """One variant and its verdict."""

    variant: Variant
    verdict: Verdict


@dataclass(frozen=True)
class Int8Search:
    """Every variant tried, of which only the last may have passed; and the cosine that the costliest layers lose."""

    tried: list[Attempt] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the file that was written may be published."""
        return bool(self.tried) and self.tried[-1].verdict.passed

    def to_json(self, bounds: FidelityBounds) -> dict[str, Any]:
        """As the manifest records it: the verdict on the best variant, and what else was tried."""
        best = self.tried[-1] if self.passed else max(self.tried, key=lambda one: one.verdict.figures["cosine_least"])
        return {
            **best.verdict.to_json(bounds),
            "variant": str(best.variant),
            "float32_layers": list(best.variant.excluded),
            "tried": {str(one.variant): list(one.verdict.failed) or "passed" for one in self.tried},
            "costliest_layers": self.costs,
        }


def search(
    quantiser: Quantiser,
    target: Path,
    images: RealImages,
    exact: RetrievalSet,
    *,
    bounds: FidelityBounds = FIDELITY,
    thorough: bool = False,
) -> Int8Search:
    """Write `target` as the first variant that passes; if none does, `target` is the last one and must not be used.

    `exact` is what the eager graph gives for the same images. Only a `thorough` search goes beyond the plain variants.
    """
    found = Int8Search()
    variants = _all_variants(quantiser, images, exact, found.costs) if thorough else plain_variants(quantiser)
    for variant in variants:
        quantiser.write(variant, target)
        runtime = open_runtime(target, device="cpu")
        verdict = judge(exact, embed(partial(run_in_passes, runtime), images), images, bounds)
        found.tried.append(Attempt(variant, verdict))
        if verdict.passed:
            break
    return found


def plain_variants(quantiser: Quantiser) -> list[Variant]:
    """The variants that share one calibration, so that each takes seconds; the plainest first."""
    first = quantiser.convolutions[0]
    return [
        Variant("percentile"),
        Variant("percentile", excluded=(first,)),
    ]


def _all_variants(
    quantiser: Quantiser, images: RealImages, exact: RetrievalSet, costs: dict[str, float]
) -> Iterator[Variant]:
    """The plain ones, and then those that take minutes; `costs` is filled when it comes to the costliest layers."""
    first, last = quantiser.convolutions[0], quantiser.convolutions[-1]
    yield from plain_variants(quantiser)
    yield Variant("percentile", excluded=(first,), equalised=True)
    yield Variant("minmax", excluded=(first,))
    yield Variant("entropy", excluded=(first,))
    yield Variant("percentile", excluded=(first, last), equalised=True)
    costs |= layer_costs(quantiser, images, exact)
    for count in (WORST_LAYERS // 2, WORST_LAYERS):
        yield Variant("percentile", excluded=tuple([*costs][:count]), equalised=True)


def layer_costs(quantiser: Quantiser, images: RealImages, exact: RetrievalSet) -> dict[str, float]:
    """The mean cosine that is lost on 64 queries if one convolution alone is int8; the costliest first.

    Whole blocks are measured first, then the convolutions of the three blocks that lose most.
    """
    costs = _LayerCosts(quantiser, images.queries[:_COST_IMAGES], exact.queries.embedding[:_COST_IMAGES])
    blocks = {block: costs.of(block) for block in tqdm(quantiser.blocks, desc="which blocks int8 costs most")}
    worst = sorted(blocks, key=lambda block: -blocks[block])[:_WORST_BLOCKS]
    layers = [name for block in worst for name in block]
    lost = {name: costs.of((name,)) for name in tqdm(layers, desc="which layers int8 costs most")}
    return dict(sorted(lost.items(), key=lambda item: -item[1])[:WORST_LAYERS])


@dataclass(frozen=True)
class _LayerCosts:
    quantiser: Quantiser
    queries: NDArray[np.uint8]
    exact: NDArray[np.float32]

    def of(self, layers: Sequence[str]) -> float:
        """The mean cosine lost when only `layers` are int8."""
        others = tuple(name for name in self.quantiser.convolutions if name not in layers)
        path = self.quantiser.folder / "few-layers.onnx"
        self.quantiser.write(Variant("percentile", excluded=others, equalised=True), path)
        found = open_runtime(path, device="cpu")(self.queries).embedding
        path.unlink()
        return float(1 - (self.exact.astype(np.float64) * found).sum(axis=1).mean())
