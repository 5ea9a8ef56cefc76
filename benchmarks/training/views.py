"""Views a second: ours in batches, torchvision's transforms an image at a time, kornia's augmentations in batches.

    python -m benchmarks.training.views --images PATH [--size 32] [--batch 256] [--threads 1] [--device cpu]

All three make views of the same distribution (crop, flip, colour jitter, grey) from the same uint8 images in
memory, in turn, `--repeat` times; the figures are medians. Torchvision draws once a call, so it gets an image at a
time, in as many processes as the others have threads, and the faster of its two kinds of input. Prints a table,
where kornia's distribution differs, and a last line of JSON. Blur, normalisation and decoding are not
measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import kornia.augmentation as kornia
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.tools.command import Figures, benchmark
from benchmarks.tools.images import add_image_arguments, open_images
from benchmarks.tools.turns import in_turn, medians
from core.command_line.command import main
from training.model.device import choose_device
from training.model.pixels import to_float
from training.model.views import random_views
from training.recipe.config import ViewsConfig
from training.run.run import training_rows

VIEWS = ViewsConfig(count=2, crop_min=0.2, colour_p=0.8, colour_strength=0.5, grey_p=0.2, blur_p=0.0)
KORNIA_DIFFERS = (
    "kornia draws the order of the colour operations once a batch, torchvision and ours once an image",
    "kornia's crop is resized without antialiasing, so a reduced crop keeps what torchvision's smooths away",
)

Images = NDArray[np.uint8]


def jitter_reach() -> tuple[float, float, float, float]:
    """How far brightness, contrast, saturation and hue may go: the arguments of the others' ColorJitter."""
    reach = VIEWS.colour_strength
    return 0.8 * reach, 0.8 * reach, 0.8 * reach, 0.2 * reach


def torchvision_view(size: int) -> v2.Compose:
    """One PIL image or uint8 (3, H, W) tensor to one view, float32 (3, size, size) in [0, 1]."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(VIEWS.crop_min, VIEWS.crop_max), antialias=True),
            v2.RandomHorizontalFlip(VIEWS.flip_p),
            v2.RandomApply([v2.ColorJitter(*jitter_reach())], VIEWS.colour_p),
            v2.RandomGrayscale(VIEWS.grey_p),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def kornia_views(size: int) -> nn.Module:
    """float (N, 3, H, W) in [0, 1] to one view of each, float32 (N, 3, size, size) in [0, 1]."""
    views: nn.Module = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), scale=(VIEWS.crop_min, VIEWS.crop_max), align_corners=False),
        kornia.RandomHorizontalFlip(p=VIEWS.flip_p),
        kornia.ColorJitter(*jitter_reach(), p=VIEWS.colour_p),
        kornia.RandomGrayscale(p=VIEWS.grey_p),
        same_on_batch=False,
    )
    return views


class OneByOne(Dataset[Tensor]):
    """A view of each image of uint8 (N, S, S, 3), made by torchvision from a PIL image or from a tensor."""

    def __init__(self, images: Images, size: int, *, from_pil: bool) -> None:
        self.images, self.view, self.from_pil = images, torchvision_view(size), from_pil

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        image = self.images[row]
        view: Tensor = self.view(Image.fromarray(image) if self.from_pil else torch.from_numpy(image).permute(2, 0, 1))
        return view


def ours(images: Images, options: argparse.Namespace) -> float:
    """Views a second of `training.model.views`, from uint8 images on the device."""
    generator = torch.Generator().manual_seed(0)
    return _batched(
        images, options, lambda batch: random_views(batch, VIEWS, generator, size=options.size).flatten(0, 1)
    )


def with_kornia(images: Images, options: argparse.Namespace) -> float:
    """Views a second of kornia, from the same."""
    views = kornia_views(options.size)
    return _batched(images, options, lambda batch: views(to_float(batch)))


def with_torchvision(images: Images, options: argparse.Namespace, *, from_pil: bool) -> Callable[[], float]:
    """A measure of torchvision's views a second on the CPU, collated into the same batches; its workers stay."""
    workers = options.threads if options.threads > 1 else 0
    loader = DataLoader(
        OneByOne(images, options.size, from_pil=from_pil),
        options.batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    sum(len(views) for views in loader)  # workers start

    def measure() -> float:
        start = time.perf_counter()
        made = sum(len(views) for views in loader)
        return made / (time.perf_counter() - start)

    return measure


def _batched(images: Images, options: argparse.Namespace, make: Callable[[Tensor], Tensor]) -> float:
    device = choose_device(options.device)
    batches = torch.from_numpy(images).to(device).split(options.batch)
    make(batches[0])
    _wait(device)
    start = time.perf_counter()
    made = sum(len(make(batch)) for batch in batches)
    _wait(device)
    return made / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(images: Images, options: argparse.Namespace) -> dict[str, list[float]]:
    """Every figure of every maker of views."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        return in_turn(
            {
                "ours": lambda: ours(images, options),
                "torchvision (PIL)": with_torchvision(images, options, from_pil=True),
                "torchvision (tensor)": with_torchvision(images, options, from_pil=False),
                "kornia": lambda: with_kornia(images, options),
            },
            options.repeat,
        )
    finally:
        torch.set_num_threads(threads)


def summary(figures: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The figures of the last line: medians, and of torchvision's two the faster one."""
    rates = {name: round(rate, 1) for name, rate in medians(figures).items()}
    torchvision = max(rates["torchvision (PIL)"], rates["torchvision (tensor)"])
    return {"views_per_s": {"ours": rates["ours"], "torchvision": torchvision, "kornia": rates["kornia"]}}


def _table(figures: dict[str, list[float]]) -> str:
    rates = medians(figures)
    lines = [f"{'':<22}{'views/s':>10}{'least':>10}{'most':>10}{'ours is':>10}"]
    for name, values in figures.items():
        times = rates["ours"] / rates[name]
        lines.append(f"{name:<22}{rates[name]:>10,.0f}{min(values):>10,.0f}{max(values):>10,.0f}{times:>9.1f}x")
    return "\n".join([*lines, *KORNIA_DIFFERS])


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument("--size", type=int, default=0, help="pixels of a view (default: of an image)")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--count", type=int, default=4096, help="how many images (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads, and processes for torchvision")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of ours and kornia: cpu (default), cuda, auto")


def _measure(options: argparse.Namespace) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        data = open_images(options, Path(folder))
        images = np.array(data.images[training_rows(data)[: options.count]])
        options.size = options.size or data.image_size
        figures = measure(images, options)
    print(_table(figures))
    return summary(figures)


COMMAND = benchmark("benchmarks.training.views", __doc__, _add_arguments, _measure)


if __name__ == "__main__":
    sys.exit(main(COMMAND))
