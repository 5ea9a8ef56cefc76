"""One safetensors file that holds a training state: written whole or not at all, and resumed exactly.

Tensors: `encoder.*`, `head.*` (their state dicts) and `optimiser.<parameter>.<buffer>`. The rest is one JSON
string in the header: config, step, normalisation, the data's digest. There is no pickle and no generator
state: randomness is counted (`training.run.batches`), and the learning rate follows from the step.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.files.durable import publish_file
from training.model.encoder import Encoder, build_encoder, freeze
from training.model.pixels import Normalisation
from training.recipe.config import PretrainConfig, from_dict, to_dict

FORMAT = "simclr-checkpoint/1"


class CheckpointError(ValueError):
    """A checkpoint that can't be read, does not fit, or could not be written."""


@dataclass
class TrainingState:
    """All that changes while training, and what it belongs to. `step` counts the steps done.

    `config` is resolved: its stem, image size, batch size and precision are the ones in use. `dataset` holds
    "digest" and "name" of the data, `seconds` the time spent in steps, `loss` the last mean loss.
    """

    config: PretrainConfig
    encoder: Encoder
    head: nn.Module
    optimiser: torch.optim.Optimizer
    normalisation: Normalisation
    dataset: dict[str, Any]
    total_steps: int
    step: int = 0
    seconds: float = 0.0
    loss: float | None = None

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter by its name in the checkpoint."""
        named = [*self.encoder.named_parameters("encoder"), *self.head.named_parameters("head")]
        return dict(named)


class LoadedEncoder(NamedTuple):
    """A frozen encoder in eval mode, on the CPU in float32, and what it was trained with.

    `metadata` is the checkpoint's: "step", "total_steps", "dataset" (with "digest"), "loss", "versions", ...
    """

    encoder: Encoder
    config: PretrainConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    metadata: dict[str, Any]


def save(path: Path, state: TrainingState) -> None:
    """Write a training state to `path` atomically; what was there stays until the new file is on disk.

    Raises `CheckpointError` if it can't be written, on a full disk for instance, or is not worth keeping
    because a tensor has a number that is not finite.
    """
    tensors = _tensors(state)
    _check_finite(tensors, path)
    metadata = {
        "config": to_dict(state.config),
        "step": state.step,
        "total_steps": state.total_steps,
        "seconds": state.seconds,
        "loss": state.loss,
        "normalisation": state.normalisation._asdict(),
        "dataset": state.dataset,
        "versions": {"torch": torch.__version__},
    }
    header = {"format": FORMAT, "state": json.dumps(metadata)}
    try:
        publish_file(path, lambda partial: save_file(tensors, partial, header))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"can't write the checkpoint {path}: {error}{_kept(path)}") from error


def restore(path: Path, state: TrainingState) -> None:
    """Load tensors and counters of a checkpoint into a state built from the same configuration.

    Raises `CheckpointError` if the file can't be read or its tensors do not fit.
    """
    metadata = read_metadata(path)
    tensors = read_tensors(path)
    try:
        state.encoder.load_state_dict(below("encoder.", tensors))
        state.head.load_state_dict(below("head.", tensors))
        parameters = state.parameters()
        for key, value in below("optimiser.", tensors).items():
            name, buffer = key.rsplit(".", 1)
            parameter = parameters[name]
            state.optimiser.state[parameter][buffer] = torch.empty_like(parameter, requires_grad=False).copy_(value)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint {path} does not fit its configuration: {error}") from error
    state.step, state.seconds, state.loss = metadata["step"], metadata["seconds"], metadata["loss"]


def read_metadata(path: Path | str) -> dict[str, Any]:
    """The JSON part of a checkpoint; `CheckpointError` for a file that is missing, cut short or foreign."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no readable checkpoint: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')!r}; {FORMAT!r} is needed")
    metadata: dict[str, Any] = json.loads(header["state"])
    return metadata


def load_encoder(path: Path | str) -> LoadedEncoder:
    """The encoder of a checkpoint, frozen. Raises `CheckpointError`."""
    metadata = read_metadata(path)
    config = from_dict(metadata["config"])
    encoder = build_encoder(config.encoder, seed=None)
    try:
        encoder.load_state_dict(below("encoder.", read_tensors(path, "encoder.")))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint {path} does not fit its configuration: {error}") from error
    return LoadedEncoder(freeze(encoder), config, *normalisation_of(metadata), metadata)


def normalisation_of(metadata: dict[str, Any]) -> Normalisation:
    """What the images of a checkpoint's run were normalised with."""
    return Normalisation(*(triple(metadata["normalisation"][name]) for name in ("mean", "std")))


def _tensors(state: TrainingState) -> dict[str, Tensor]:
    tensors = {f"encoder.{name}": value for name, value in state.encoder.state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in state.head.state_dict().items()}
    for name, parameter in state.parameters().items():
        for buffer, value in state.optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{name}.{buffer}"] = value
    return {name: value.detach().contiguous() for name, value in tensors.items()}


def _check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(
            f"{len(broken)} tensors are not finite, {broken[0]} first: not saved to {path}{_kept(path)}. Try a "
            "lower --lr or --precision fp32"
        )


def _kept(path: Path) -> str:
    return "; the previous checkpoint is untouched" if path.exists() else ""


def read_tensors(path: Path | str, prefix: str = "") -> dict[str, Tensor]:
    """Those tensors of a safetensors file whose names begin with `prefix`. Raises `CheckpointError`."""
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def triple(values: list[float]) -> tuple[float, float, float]:
    """One number a channel."""
    red, green, blue = values
    return red, green, blue
