"""What one pretraining run is: frozen dataclasses that go to JSON and back without loss.

A configuration names everything that decides the weights of a run. Where it runs and how often it saves
(device, log interval) do not change what is learnt and are options of the command instead. The recipes
themselves are in `training.presets`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

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
        _member("encoder.architecture", self.architecture, ARCHITECTURES)
        _member("encoder.stem", self.stem, get_args(Stem))
        _member("encoder.weights", self.weights, get_args(Weights))
        _between("encoder.image_size", self.image_size, 4, 1024)

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
        _member("head.kind", self.kind, get_args(HeadKind))
        _between("head.hidden", self.hidden, 1, 1 << 16)
        _between("head.out", self.out, 1, 1 << 16)


@dataclass(frozen=True)
class ViewsConfig:
    """The distribution of one random view (SimCLR Appendix A). Fields ending in `_p` are probabilities.

    `crop_min`, `crop_max`: the crop's share of the area. `colour_strength`: the paper's s, giving factors
    within 0.8s for brightness, contrast and saturation, and 0.2s for hue.
    """

    crop_min: float = 0.2
    crop_max: float = 1.0
    flip_p: float = 0.5
    colour_p: float = 0.8
    colour_strength: float = 0.5
    grey_p: float = 0.2
    blur_p: float = 0.0

    def __post_init__(self) -> None:
        _between("views.crop_min", self.crop_min, 0.01, 1)
        _between("views.crop_max", self.crop_max, self.crop_min, 1)
        _between("views.colour_strength", self.colour_strength, 0, 2.5)  # beyond 2.5, hue leaves its circle
        for name in ("flip_p", "colour_p", "grey_p", "blur_p"):
            _between(f"views.{name}", getattr(self, name), 0, 1)


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser: lr is the peak, reached after `warmup_epochs`, and not scaled by the batch size."""

    name: OptimiserName = "sgd"
    lr: float = 0.06
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 10.0

    def __post_init__(self) -> None:
        _member("optimiser.name", self.name, get_args(OptimiserName))
        _between("optimiser.lr", self.lr, 1e-8, 1e3)
        _between("optimiser.momentum", self.momentum, 0, 0.9999)
        _between("optimiser.weight_decay", self.weight_decay, 0, 1)
        _between("optimiser.warmup_epochs", self.warmup_epochs, 0, 1e6)


@dataclass(frozen=True)
class PretrainConfig:
    """One run, whole: two runs with equal configurations and equal data learn the same weights."""

    preset: str = "custom"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    temperature: float = 0.5
    batch_size: int = 256
    epochs: int = 100
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        _between("temperature", self.temperature, 1e-3, 100)
        _between("batch_size", self.batch_size, 2, 1 << 20)
        _between("epochs", self.epochs, 1, 1_000_000)
        _between("seed", self.seed, 0, 2**31 - 1)
        _member("precision", self.precision, get_args(Precision))
        if self.optimiser.warmup_epochs >= self.epochs:
            raise ValueError(
                f"optimiser.warmup_epochs is {self.optimiser.warmup_epochs}; it must be less than epochs, "
                f"which is {self.epochs}"
            )


def to_dict(config: PretrainConfig) -> dict[str, Any]:
    """The configuration as plain dictionaries, numbers and strings, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> PretrainConfig:
    """The inverse of `to_dict`; absent keys take their defaults, and an unknown key is a ValueError."""
    return cast(PretrainConfig, _build(PretrainConfig, values, ""))


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
        node[leaf] = _parse(value)
    return from_dict(values)


def _build(kind: type, values: Any, path: str) -> object:
    if not isinstance(values, Mapping):
        raise ValueError(f"{path.rstrip('.')} is {values!r}; a mapping of keys to values is needed")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"unknown key {path + unknown[0]!r}; known keys: {', '.join(hints)}")
    return kind(**{name: _typed(hints[name], value, path + name) for name, value in values.items()})


def _typed(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(cast(type, kind), value, f"{path}.")
    wanted = str if get_origin(kind) is Literal else kind
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise ValueError(f"{path} is {value!r}; a value of type {wanted.__name__} is needed")
    return value


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(re.sub(r"^(-?)\.", r"\g<1>0.", value))  # ".1", as people write it
    except json.JSONDecodeError:
        return value


def _member(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} is {value!r}; accepted: {', '.join(accepted)}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} is {value}; accepted: {low} to {high}")
