"""What one pretraining run is: frozen dataclasses that go to JSON and back without loss.

A configuration names everything that decides the weights of a run. Where it runs and how often it saves
(device, log interval) do not change what is learnt and are options of the command instead. The recipes
themselves are in `training.recipe.presets`, types and ranges of values in `training.recipe.values`.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from training.recipe.values import between, build, one_of, parse

ARCHITECTURES = (
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
)

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

    architecture: str = "resnet50"
    stem: Stem = "auto"
    image_size: int = 32
    weights: Weights = "random"
    zero_init_residual: bool = True

    def __post_init__(self) -> None:
        one_of("encoder.architecture", self.architecture, ARCHITECTURES)
        one_of("encoder.stem", self.stem, get_args(Stem))
        one_of("encoder.weights", self.weights, get_args(Weights))
        between("encoder.image_size", self.image_size, 4, 1024)

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
    hidden: int = 2048
    out: int = 128
    norm_out: bool = True

    def __post_init__(self) -> None:
        one_of("head.kind", self.kind, get_args(HeadKind))
        between("head.hidden", self.hidden, 1, 1 << 16)
        between("head.out", self.out, 1, 1 << 16)


@dataclass(frozen=True)
class ViewsConfig:
    """How many views an image has, and their distribution (SimCLR Appendix A). `_p` marks probabilities.

    `crop_min`, `crop_max`: the crop's share of the area. `colour_strength`: the paper's s, giving factors
    within 0.8s for brightness, contrast and saturation, and 0.2s for hue.
    """

    count: int = 2
    crop_min: float = 0.2
    crop_max: float = 1.0
    flip_p: float = 0.5
    colour_p: float = 0.8
    colour_strength: float = 0.5
    grey_p: float = 0.2
    blur_p: float = 0.0

    def __post_init__(self) -> None:
        between("views.count", self.count, 2, 64)
        between("views.crop_min", self.crop_min, 0.01, 1)
        between("views.crop_max", self.crop_max, self.crop_min, 1)
        between("views.colour_strength", self.colour_strength, 0, 2.5)  # beyond 2.5, hue leaves its circle
        for name in ("flip_p", "colour_p", "grey_p", "blur_p"):
            between(f"views.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser: lr is the peak, reached after `warmup_epochs`, and not scaled by the batch size."""

    name: OptimiserName = "sgd"
    lr: float = 0.06
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 10.0

    def __post_init__(self) -> None:
        one_of("optimiser.name", self.name, get_args(OptimiserName))
        between("optimiser.lr", self.lr, 1e-8, 1e3)
        between("optimiser.momentum", self.momentum, 0, 0.9999)
        between("optimiser.weight_decay", self.weight_decay, 0, 1)
        between("optimiser.warmup_epochs", self.warmup_epochs, 0, 1e6)


@dataclass(frozen=True)
class Resolution:
    """A stage of progressive resolution: views of `size` pixels for a `share` of the steps."""

    size: int
    share: float

    def __post_init__(self) -> None:
        between("resolutions.size", self.size, 4, 1024)
        between("resolutions.share", self.share, 0, 1)


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
    temperature: float = 0.5
    batch_size: int = 256
    chunk_size: int = 0
    resolutions: tuple[Resolution, ...] = ()
    epochs: int = 100
    steps: int = 0
    seed: int = 0
    start: str = ""
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        one_of("loss", self.loss, get_args(Loss))
        between("temperature", self.temperature, 1e-3, 100)
        between("batch_size", self.batch_size, 2, 1 << 20)
        between("chunk_size", self.chunk_size, 0, 1 << 20)
        between("epochs", self.epochs, 1, 1_000_000)
        between("steps", self.steps, 0, 1 << 40)
        between("seed", self.seed, 0, 2**31 - 1)
        one_of("precision", self.precision, get_args(Precision))
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
    """The inverse of `to_dict`; absent keys take their defaults, and an unknown key is a ValueError."""
    return cast(PretrainConfig, build(PretrainConfig, values))


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
