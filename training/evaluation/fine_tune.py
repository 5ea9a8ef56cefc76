"""Fine-tuning: a copy of the encoder and a classifier on it, trained whole with labels (SimCLR, Appendix B.5).

SGD with momentum 0.9 and a cosine, over the run's crop and flip. The rate is the better of a small grid and the
epoch the best of its run, both on validation (of equal epochs the last, of equal rates the first); test is looked at
once, by the network so chosen. From random weights the same code is the "from scratch" that says whether pretraining
gained anything. The encoder that is given is not touched: its copy is trained, and no weights are kept, for what is
served is the frozen encoder. So a fine-tuning that is stopped starts again from its first rate and epoch; finished
ones, each of a share of the labels and a seed, are kept.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.data.dataset import Dataset
from training.data.row_reader import RowReader
from training.evaluation.augmented_probe import crop_and_flip
from training.evaluation.few_labels import SEEDS, few, mean_of, shares
from training.evaluation.label_splits import LabelSplits, Rows
from training.evaluation.subject import Subject
from training.measures.embed import full_precision
from training.model.encoder import Encoder, place
from training.model.optimise import build_optimiser, build_schedule
from training.model.pixels import Normalisation, normalise, to_float
from training.model.small_maps import use_small_maps
from training.model.views import apply, draw, views_generator
from training.recipe.config import EncoderConfig, OptimiserConfig, ViewsConfig
from training.run.batches import Batches

RATES = (0.03, 0.1)  # for a batch of 256; scaled with it
BATCH_MOST, BATCH_LEAST, STEPS_WANTED = 256, 16, 20  # few images make small batches, so that an epoch has steps
_WARMUP, _TEST_BATCH = 0.05, 128


@dataclass(frozen=True)
class Setting:
    """What fine-tuning needs to know beside the images: `epochs` of each trial, and how the encoder sees images."""

    epochs: int
    views: ViewsConfig
    normalisation: Normalisation
    device: torch.device
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 10_000:
            raise ValueError(f"epochs is {self.epochs}; accepted: 1 to 10000")


class Classifier(nn.Module):
    """An encoder and a linear layer from zero: normalised (N, 3, S, S) to logits (N, C)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder, self.linear = encoder, nn.Linear(encoder.embedding_dim, classes)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; the type is autocast's."""
        logits: Tensor = self.linear(self.encoder(images))
        return logits


@dataclass
class _Best:
    """The best network so far, as its state on the CPU, and what makes it the best."""

    validation: float = -math.inf
    rate: float = 0.0
    epoch: int = 0
    state: dict[str, Tensor] | None = None

    def offer(self, network: nn.Module, validation: float, rate: float, epoch: int) -> None:
        """Keep `network` if it is better, or as good and trained longer at the same rate."""
        equal = validation == self.validation and rate == self.rate
        if self.state is None or validation > self.validation or equal:
            self.validation, self.rate, self.epoch = validation, rate, epoch
            self.state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def fine_tune(
    encoder: Encoder, dataset: Dataset, splits: LabelSplits, setting: Setting, *, name: str
) -> dict[str, Any]:
    """Fine-tune copies of `encoder` on `splits.train`, and test the one that is best on validation.

    Returns {"accuracy" (test), "validation_accuracy" (None without validation images), "lr", "epoch", "epochs",
    "images"}. Without validation images the first rate and the last epoch are taken. `name` is for the bar.
    """
    choosing = len(splits.validation) > 0
    rates = RATES if choosing else RATES[:1]
    batches = _batches(dataset, splits, setting)
    best = _Best()
    total = len(rates) * setting.epochs * batches.steps_per_epoch
    with tqdm(total=total, desc=f"fine-tuning, {name}", unit=" steps") as bar:
        for rate in rates:
            network = _copied(encoder, len(splits.seen), setting.device)
            for epoch in _train(network, splits, batches, setting, rate=rate, bar=bar):
                if choosing:
                    best.offer(network, right(network, dataset, splits, splits.validation, setting), rate, epoch)
                    bar.set_postfix_str(f"validation {best.validation:.1%} (lr {best.rate:g}, epoch {best.epoch})")
            if not choosing:
                best.offer(network, math.nan, rate, setting.epochs)
    assert best.state is not None
    network.load_state_dict(best.state)
    return {
        "accuracy": right(network, dataset, splits, splits.test, setting),
        "validation_accuracy": best.validation if choosing else None,
        "lr": best.rate,
        "epoch": best.epoch,
        "epochs": setting.epochs,
        "images": len(splits.train),
    }


@torch.no_grad()
def right(network: nn.Module, dataset: Dataset, splits: LabelSplits, rows: Rows, setting: Setting) -> float:
    """The share of `rows` that the network, in eval mode meanwhile, gives their label; fp32.

    Raises OSError if an image can't be read.
    """
    network.eval()
    read, found = RowReader(dataset.images), []
    with full_precision(setting.device):
        for start in range(0, len(rows), _TEST_BATCH):
            pixels = torch.from_numpy(read(rows[start : start + _TEST_BATCH])).to(setting.device)
            found.append(network(_normalised(to_float(pixels), setting)).argmax(dim=1).cpu().numpy())
    network.train()
    return float(np.mean(np.concatenate(found) == splits.targets(rows)))


def _batches(dataset: Dataset, splits: LabelSplits, setting: Setting) -> Batches:
    wanted = max(BATCH_LEAST, min(BATCH_MOST, len(splits.train) // STEPS_WANTED))
    size = min(wanted, len(splits.train))
    return Batches(dataset.images, splits.train, batch_size=size, seed=setting.seed, device=setting.device)


def _copied(encoder: Encoder, classes: int, device: torch.device) -> Classifier:
    """A classifier on a trainable copy of the encoder."""
    trainable = copy.deepcopy(encoder)
    trainable.frozen = False
    trainable.requires_grad_(True)
    if device.type == "cpu":
        use_small_maps(trainable)
    network = Classifier(place(trainable, device), classes).to(device)
    network.train()
    return network


def _train(
    network: nn.Module, splits: LabelSplits, batches: Batches, setting: Setting, *, rate: float, bar: tqdm
) -> Iterator[int]:
    """Train; yields the number of each epoch, from 1, when it is done."""
    targets = torch.from_numpy(splits.targets(splits.train))
    total = setting.epochs * batches.steps_per_epoch
    peak = rate * len(batches.positions(0)) / BATCH_MOST
    optimiser = build_optimiser(network, OptimiserConfig("sgd", peak, 0.9, weight_decay=1e-4, warmup_epochs=0))
    schedule = build_schedule(optimiser, total=total, warmup=int(_WARMUP * total))
    for step in range(total):
        views = _views(batches(step), setting, step)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(setting.device.type, dtype=torch.bfloat16, enabled=setting.precision == "bf16"):
            logits = network(views)
        F.cross_entropy(logits.float(), targets[batches.positions(step)].to(setting.device)).backward()
        optimiser.step()
        schedule.step()
        bar.update()
        if (step + 1) % batches.steps_per_epoch == 0:
            yield (step + 1) // batches.steps_per_epoch


def _views(images: Tensor, setting: Setting, step: int) -> Tensor:
    """Crops and flips of uint8 (N, S, S, 3), normalised (N, 3, S, S)."""
    height, width = images.shape[1:3]
    generator = views_generator(setting.seed, step)
    draws = draw(len(images), crop_and_flip(setting.views), height=height, width=width, generator=generator)
    return _normalised(apply(to_float(images), draws), setting)


def _normalised(images: Tensor, setting: Setting) -> Tensor:
    return normalise(images, setting.normalisation).contiguous(memory_format=torch.channels_last)


def fine_tune_all(
    subject: Subject, encoder: Encoder, splits: LabelSplits, setting: Setting, *, start: EncoderConfig
) -> dict[str, Any]:
    """Fine-tuning with all labels and with few: {"100%": ..., "10%": ..., "1%": ...}, each made once.

    The few are drawn as for the probe (`training.evaluation.few_labels`) and their runs are a mean over its seeds; a
    share that is no image a label is left out. `encoder` is what is copied: the subject's, or one fresh from `start`.
    """
    trained = {"views": asdict(setting.views), "precision": setting.precision, "seed": setting.seed}
    request = {"epochs": setting.epochs, "start": asdict(start), **trained}

    def run(title: str, chosen: LabelSplits) -> dict[str, Any]:
        name = f"{subject.name}, {title}"
        work = lambda: fine_tune(encoder, subject.dataset, chosen, setting, name=name)  # noqa: E731
        result: dict[str, Any] = subject.once(f"fine-tuning {title}", work, request=request)
        return result

    found = {"100%": run("100%", splits)}
    for title, share in shares(splits).items():
        found[title] = mean_of([run(f"{title} seed {seed}", few(splits, share, seed=seed)) for seed in SEEDS])
    return found
