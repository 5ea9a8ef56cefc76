"""A linear classifier on embeddings of augmented views: what a frozen encoder knows, a little less bound to the crop.

Some passes over the train images, each of other random views (the run's crop and flip, no colour), are embedded by
the frozen encoder; epoch by epoch the classifier sees the next of them (SimCLR, Appendix B.6, trains its linear
evaluation on such crops). AdamW and a cosine to 0. All pairs of a rate and a weight decay are trained side by side;
the pair and the epoch are the best on validation (of equals the last epoch), whose images, like those of test, are
not augmented.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.data.dataset import Dataset
from training.evaluation.label_splits import LabelSplits, Rows
from training.evaluation.subject import Subject
from training.measures.embed import embed_all
from training.measures.probe import Probe, accuracy, fold_in
from training.model.optimise import build_schedule
from training.model.views import Draws, draw, views_generator
from training.recipe.config import ViewsConfig

GRID = ((0.001, 0.01), (0.001, 1.0), (0.01, 0.01), (0.01, 1.0))  # rate and weight decay
EPOCHS, BATCH_MOST, STEPS_LEAST = 40, 256, 20  # an epoch of few images has smaller batches, to converge all the same
_SEED = 0x5EED

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """A probe, what chose it, and the accuracy it was chosen by (None: no validation images)."""

    probe: Probe
    lr: float
    weight_decay: float
    epoch: int
    validation_accuracy: float | None


def crop_and_flip(views: ViewsConfig) -> ViewsConfig:
    """The run's crop and flip without its colours: the views of supervised training (SimCLR, Appendix B.5)."""
    return replace(views, count=2, colour_p=0.0, grey_p=0.0, blur_p=0.0)


def augmented_probe(subject: Subject, splits: LabelSplits, views: ViewsConfig, *, passes: int) -> dict[str, Any]:
    """{"accuracy" (test), "validation_accuracy", "lr", "weight_decay", "epoch", "passes"}; made once, see `Subject`.

    The embeddings of each pass are kept until the result is there. Raises ValueError for `passes` that are
    not 1 to `EPOCHS`: an epoch sees one of them, so more would never be seen.
    """
    if not 1 <= passes <= EPOCHS:
        raise ValueError(f"passes is {passes}; accepted: 1 to {EPOCHS}, one an epoch")
    prefix = f"{subject.name.replace(' ', '-')}-views-"

    def work() -> dict[str, Any]:
        embedded = [_embedded(subject, splits.train, views, f"{prefix}{number}", number) for number in range(passes)]
        choice = fit(embedded, subject.h, splits, device=subject.representation.by.device)
        found = accuracy(choice.probe, subject.h[splits.test], splits.names(splits.test))
        return {
            "accuracy": found,
            "validation_accuracy": choice.validation_accuracy,
            "lr": choice.lr,
            "weight_decay": choice.weight_decay,
            "epoch": choice.epoch,
            "passes": passes,
        }

    request = {"views": _words(views), "passes": passes}
    result: dict[str, Any] = subject.once("augmented probe", work, request=request)
    subject.home.cache.drop(prefix)
    return result


def fit(passes: Sequence[Embeddings], h: Embeddings, splits: LabelSplits, *, device: torch.device) -> Choice:
    """Fit on embeddings of views, `passes` of (M, D) in the order of `splits.train`, choosing on validation.

    `h` (N, D) is of all images, not augmented; of it only the validation rows are read. Without validation images
    the first of `GRID` and the last epoch are taken.
    """
    targets = torch.from_numpy(splits.targets(splits.train)).to(device)
    scale = _statistics(passes[0])
    mean, std = (torch.from_numpy(values).to(device) for values in scale)
    validation = (torch.from_numpy(h[splits.validation]).to(device) - mean) / std
    wanted = torch.from_numpy(splits.targets(splits.validation)).to(device)
    classifiers = _classifiers(passes[0].shape[1], len(splits.seen)).to(device)
    best: tuple[float, int, int] | None = None
    weight, bias = _copied(classifiers[0])
    with tqdm(total=EPOCHS, desc="augmented probe", unit=" epochs") as bar:
        for epoch in _epochs(classifiers, passes, targets, (mean, std)):
            bar.update()
            for number, share in enumerate(_shares_right(classifiers, validation, wanted)):
                if best is None or (share, epoch) > best[:2]:
                    best = (share, epoch, number)
                    weight, bias = _copied(classifiers[number])
    if best is None:
        best = (math.nan, EPOCHS, 0)
        weight, bias = _copied(classifiers[0])
    classes = tuple(splits.classes[code] for code in splits.seen)
    probe = fold_in(weight.cpu().numpy(), bias.cpu().numpy(), mean=scale[0], scale=scale[1], classes=classes)
    return Choice(probe, *GRID[best[2]], best[1], None if math.isnan(best[0]) else best[0])


def _words(views: ViewsConfig) -> dict[str, float]:
    return {"crop_min": views.crop_min, "crop_max": views.crop_max, "flip_p": views.flip_p}


def _embedded(subject: Subject, rows: Rows, views: ViewsConfig, name: str, number: int) -> Embeddings:
    key = subject.key | {"views": _words(views), "pass": number}

    def compute() -> Embeddings:
        return embed_all(
            subject.representation.by,
            subject.dataset.images,
            rows=rows,
            draws=_draws(subject.dataset, len(rows), views, number),
            description=f"embedding views {number + 1}, {subject.name}",
        )

    return subject.home.cache.get(name, key, compute)


def _draws(dataset: Dataset, count: int, views: ViewsConfig, number: int) -> Draws:
    """All draws of a pass at once, so that they do not depend on how the images are batched."""
    size = dataset.image_size
    return draw(count, crop_and_flip(views), height=size, width=size, generator=views_generator(_SEED, number))


def _statistics(h: Embeddings) -> tuple[Embeddings, Embeddings]:
    std = h.std(axis=0)
    return h.mean(axis=0), np.where(std > 1e-8, std, 1).astype(np.float32)


def _classifiers(dim: int, classes: int) -> nn.ModuleList:
    """One linear layer a pair of the grid, all from zero: the convex problem needs no random start."""
    layers = nn.ModuleList(nn.Linear(dim, classes) for _ in GRID)
    for parameter in layers.parameters():
        nn.init.zeros_(parameter)
    return layers


def _epochs(
    classifiers: nn.ModuleList, passes: Sequence[Embeddings], targets: Tensor, scale: tuple[Tensor, Tensor]
) -> Iterator[int]:
    """Train; yields the number of each epoch, from 1, when it is done."""
    groups = [
        {"params": one.parameters(), "lr": rate, "weight_decay": decay}
        for one, (rate, decay) in zip(classifiers, GRID, strict=True)
    ]
    optimiser = torch.optim.AdamW(groups)
    batches = min(len(targets), max(STEPS_LEAST, math.ceil(len(targets) / BATCH_MOST)))
    schedule = build_schedule(optimiser, total=EPOCHS * batches, warmup=0)
    for epoch in range(EPOCHS):
        order = np.random.default_rng([_SEED, epoch]).permutation(len(targets))
        for part in np.array_split(order, batches):
            h = (torch.from_numpy(passes[epoch % len(passes)][part]).to(targets.device) - scale[0]) / scale[1]
            wanted = targets[torch.from_numpy(part).to(targets.device)]
            optimiser.zero_grad()
            torch.stack([F.cross_entropy(one(h), wanted) for one in classifiers]).sum().backward()
            optimiser.step()
            schedule.step()
        yield epoch + 1


@torch.no_grad()
def _shares_right(classifiers: nn.ModuleList, h: Tensor, wanted: Tensor) -> list[float]:
    """The accuracy of each classifier; none at all without images."""
    if not len(wanted):
        return []
    return [float((one(h).argmax(dim=1) == wanted).float().mean()) for one in classifiers]


def _copied(classifier: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(classifier, nn.Linear)
    return classifier.weight.detach().clone(), classifier.bias.detach().clone()
