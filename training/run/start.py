"""Where a run begins from other than random weights: an encoder that was trained before (`--start-from`).

A release gives its encoder; a checkpoint its encoder and its projection head. Normalisation comes along, as the
weights were learnt with it. The file's SHA-256 becomes part of the run's configuration: it decides what is learnt.
ImageNet weights are fetched by `training.model.encoder`.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from core.files.durable import sha256_of
from core.releases.manifest import FILE_NAME, Release
from training.model.encoder import Encoder
from training.model.pixels import Normalisation
from training.recipe.config import EncoderConfig, from_dict
from training.run.checkpoint import CheckpointError, below, normalisation_of, read_metadata, read_tensors, triple

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Start:
    """An encoder's configuration and where its tensors are; `digest` is the file's SHA-256."""

    path: Path
    digest: str
    encoder: EncoderConfig
    normalisation: Normalisation

    def load(self, encoder: Encoder, head: nn.Module) -> None:
        """Put the weights in place; the head keeps its random ones where the file has none that fit.

        Raises `CheckpointError` if the file changed, or is of another encoder.
        """
        if (found := sha256_of(self.path)) != self.digest:
            raise CheckpointError(f"{self.path} changed while the run began: its SHA-256 is {found}, not {self.digest}")
        tensors = read_tensors(self.path)
        try:
            encoder.load_state_dict(below("encoder.", tensors))
        except RuntimeError as error:
            raise CheckpointError(f"{self.path} is of another encoder than {self.encoder}: {error}") from error
        weights = below("head.", tensors)
        if {name: value.shape for name, value in weights.items()} == _shapes(head):
            head.load_state_dict(weights)


def start_of(path: Path) -> Start:
    """A release folder, or a checkpoint. Raises `ManifestError` or `CheckpointError` for what is neither, or broken."""
    if (path / FILE_NAME).is_file():
        return _of_release(path)
    metadata = read_metadata(path)
    config = from_dict(metadata["config"])
    return Start(
        path,
        sha256_of(path),
        config.encoder,
        normalisation_of(metadata),
    )


def _of_release(folder: Path) -> Start:
    release = Release(folder)
    path = release.file(WEIGHTS)
    config = from_dict(release.manifest.lineage["config"])
    tensors = read_tensors(path)
    mean, std = (triple(tensors[name].flatten().tolist()) for name in ("mean", "std"))
    return Start(path, release.manifest.files[WEIGHTS].sha256, config.encoder, Normalisation(mean, std))


def _shapes(module: nn.Module) -> dict[str, object]:
    return {name: value.shape for name, value in module.state_dict().items()}
