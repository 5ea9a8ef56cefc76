"""What one pretraining run is: frozen dataclasses that go to JSON and back without loss.

A configuration names everything that decides the weights of a run. Where it runs and how often it saves
(device, log interval) do not change what is learnt and are options of the command instead. The recipes
themselves are in `training.recipe.presets`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from training.recipe.values import build, check, parse

Architecture = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]

# Types with their ranges, which `training.recipe.values` checks.
Share = Annotated[float, Meta(ge=0, le=1)]
Pixels = Annotated[int, Meta(ge=4, le=1024)]
Width = Annotated[int, Meta(ge=1, le=65_536)]
Stem = Literal["auto", "small", "small_stride2", "imagenet"]
Weights = Literal["random", "imagenet"]
HeadKind = Literal["mlp", "linear", "none"]
OptimiserName = Literal["sgd", "lars"]
Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["nt_xent", "dcl"]
Compile = Literal["auto", "on", "off"]  # no part of a configuration: it does not change what is learnt


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder: a torchvision ResNet by name, its stem, the image size it learns at, its first weights.

    `image_size` is in pixels; `pretrain` sets it to the data's. Stem "auto" is "small" up to 64 px.
    """

    architecture: Architecture = "resnet50"
    stem: Stem = "auto"
    image_size: Pixels = 32
    weights: Weights = "random"
    zero_init_residual: bool = True

    def __post_init__(self) -> None:
        check(self, "encoder.")

    @property
    def resolved_stem(self) -> Stem:
        """The stem itself, with "auto" decided by the image size."""
        if self.stem != "auto":
            return self.stem
        return "small" if self.image_size <= 64 else "imagenet"

    @property
    def smallest_strided_map(self) -> int:
        """The side, in pixels, of the map that the last strided convolution reads (in layer4)."""
        stem_stride = {"small": 1, "small_stride2": 2, "imagenet": 4}[self.resolved_stem]
        return -(-self.image_size // (stem_stride * 4))


@dataclass(frozen=True)
class HeadConfig:
    """The projection head g: kind, width of its hidden layer ("mlp" only), width of the projection z.

    `norm_out` puts a BatchNorm without parameters after the last layer, as the paper's code does: projections
    of a fresh encoder are nearly parallel, and centring them spares the first hundreds of steps.
    """

    kind: HeadKind = "mlp"
    hidden: Width = 2048
    out: Width = 128
    norm_out: bool = True

    def __post_init__(self) -> None:
        check(self, "head.")


@dataclass(frozen=True)
class ViewsConfig:
    """How many views an image has, and their distribution (SimCLR Appendix A). `_p` marks probabilities.

    `crop_min`, `crop_max`: the crop's share of the area. `colour_strength`: the paper's s, giving factors
    within 0.8s for brightness, contrast and saturation, and 0.2s for hue.
    """

    count: Annotated[int, Meta(ge=2, le=64)] = 2
    crop_min: Annotated[float, Meta(ge=0.01, le=1)] = 0.2
    crop_max: Share = 1.0
    flip_p: Share = 0.5
    colour_p: Share = 0.8
    colour_strength: Annotated[float, Meta(ge=0, le=2.5)] = 0.5  # beyond 2.5, hue leaves its circle
    grey_p: Share = 0.2
    blur_p: Share = 0.0

    def __post_init__(self) -> None:
        check(self, "views.")
        if self.crop_max < self.crop_min:
            raise ValueError(
                f"views.crop_max is {self.crop_max}; accepted: numbers from views.crop_min, {self.crop_min}, to 1"
            )


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser: lr is the peak, reached after `warmup_epochs`, and not scaled by the batch size."""

    name: OptimiserName = "sgd"
    lr: Annotated[float, Meta(ge=1e-8, le=1000)] = 0.06
    momentum: Annotated[float, Meta(ge=0, le=0.9999)] = 0.9
    weight_decay: Share = 5e-4
    warmup_epochs: Annotated[float, Meta(ge=0, le=1_000_000)] = 10.0

    def __post_init__(self) -> None:
        check(self, "optimiser.")


@dataclass(frozen=True)
class Resolution:
    """A stage of progressive resolution: views of `size` pixels for a `share` of the steps."""

    size: Pixels
    share: Share

    def __post_init__(self) -> None:
        check(self, "resolutions.")


@dataclass(frozen=True)
class PretrainConfig:
    """One run, whole: two runs with equal configurations and equal data learn the same weights.

    `batch_size` counts images, over all processes. `resolutions` are the sizes of the views, in order; none means
    the images' own throughout. `chunk_size` is the number of images that each process has in memory as
    activations at a time (GradCache, see `training.run.step`); 0 is the whole batch. `steps` ends the run after so
    many, counted across epochs; 0 means after `epochs` whole ones. `start` is the SHA-256 of the file whose weights the
    run begins with (`training.run.start`), "" for those that `encoder.weights` says.
    """

    preset: str = "custom"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    loss: Loss = "nt_xent"
    temperature: Annotated[float, Meta(ge=0.001, le=100)] = 0.5
    batch_size: Annotated[int, Meta(ge=2, le=1 << 20)] = 256
    chunk_size: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    resolutions: tuple[Resolution, ...] = ()
    epochs: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    steps: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    start: str = ""
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check(self)
        if self.optimiser.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimiser.warmup_epochs is {self.optimiser.warmup_epochs}; it must be less than epochs, "
                f"which is {self.epochs}"
            )
        whole = sum(stage.share for stage in self.resolutions)
        if self.resolutions and abs(whole - 1) > 1e-6:
            raise ValueError(f"resolutions has shares that sum to {whole:.6g}; they must sum to 1")

    def view_size(self, step: int, *, total: int) -> int:
        """The side of the views of step `step` (0 to total - 1), in pixels."""
        return next((size for size, steps in self.stages(total) if step in steps), self.view_sizes[-1])

    def stages(self, total: int) -> list[tuple[int, range]]:
        """The sides of the views in order, in pixels, each with the steps, of `total`, that it is for."""
        ends = [round(end * total) for end in itertools.accumulate(stage.share for stage in self.resolutions)]
        ends = [*ends[:-1], total]
        starts = [0, *ends[:-1]]
        return [(size, range(*steps)) for size, *steps in zip(self.view_sizes, starts, ends, strict=True)]

    @property
    def view_sizes(self) -> tuple[int, ...]:
        """Every size that views take, in order."""
        return tuple(stage.size for stage in self.resolutions) or (self.encoder.image_size,)


def to_dict(config: PretrainConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, numbers and strings, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> PretrainConfig:
    """The inverse of `to_dict`; absent keys take their defaults, and a wrong key or value is a ValueError.

    A resolution may be short: [16, 0.55] for {"size": 16, "share": 0.55}.
    """
    stages = values.get("resolutions")
    if isinstance(stages, list | tuple):
        values = {**values, "resolutions": [_named(stage) for stage in stages]}
    return build(PretrainConfig, values)


def _named(stage: Any) -> Any:
    names = [item.name for item in dataclasses.fields(Resolution)]
    return dict(zip(names, stage, strict=True)) if isinstance(stage, list) and len(stage) == len(names) else stage


def flatten(config: PretrainConfig) -> dict[str, Any]:
    """Dotted names to values: {"optimiser.lr": 0.06, ...}."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def differing_keys(first: PretrainConfig, second: PretrainConfig) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two configurations differ, each with both values."""
    ours, theirs = flatten(first), flatten(second)
    return {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}


def override(config: PretrainConfig, changes: Mapping[str, Any]) -> PretrainConfig:
    """Change dotted keys, e.g. {"optimiser.lr": "0.3"}; text is parsed as JSON where that is possible.

    All changes apply at once, so that two that are only valid together need no order. Raises ValueError
    for an unknown key or a value of the wrong type or range.
    """
    values = to_dict(config)
    for key, value in changes.items():
        *parents, leaf = key.split(".")
        node = values
        for parent in parents:
            node = node.get(parent, {}) if isinstance(node, dict) else {}
        if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
            raise ValueError(f"unknown key {key!r}; known keys: {', '.join(flatten(config))}")
        node[leaf] = parse(value)
    return from_dict(values)
