"""The recipes: one function a preset, whose docstring says command, hardware, time and score.

"Measured" is what this code gave on the hardware named; "expected" is what a paper or another project reports
for the same recipe, and nobody has run it here. Each function takes what a recipe may depend on, the number
of training images, their size in pixels and the epochs wished for (None: the recipe's own number), and returns a
whole configuration. Unless a docstring says otherwise, GPUs compile, and compute in bf16 and channels_last.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from training.recipe.config import (
    EncoderConfig,
    HeadConfig,
    OptimiserConfig,
    PretrainConfig,
    Resolution,
    Stem,
    ViewsConfig,
)

logger = logging.getLogger(__name__)

Preset = Callable[[int, int, int | None], PretrainConfig]


def cifar10(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """Small images, random weights, SGD: the settings of the best open CIFAR-10 figures.

    Command: `simclr pretrain --data DIR --out DIR --preset cifar10`
    Hardware: one GPU with 40 GB.
    Measured: nothing yet.
    Expected: 93.4% linear probe, 93.7% augmented, 92.6% kNN after 1,000 epochs, 36.9 s an epoch on an A100
    (dkobak/simclr-cifar10).

    The rate is 0.06 B/256 for a batch of B = 512, and twice that for up to 200 epochs; with another --batch-size
    scale --lr with it.
    """
    epochs = 1000 if epochs is None else epochs
    batch_size = 512
    rate = (0.12 if epochs <= 200 else 0.06) * batch_size / 256
    return PretrainConfig(
        preset="cifar10",
        encoder=EncoderConfig(stem="small", image_size=image_size),
        head=HeadConfig("mlp", 2048, 128),
        views=ViewsConfig(crop_min=0.2, colour_strength=0.5, grey_p=0.1, blur_p=0.0),
        optimiser=OptimiserConfig("sgd", rate, momentum=0.9, weight_decay=5e-4, warmup_epochs=_warmup(10, epochs)),
        temperature=0.5,
        batch_size=batch_size,
        epochs=epochs,
    )


def paper(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """SimCLR's CIFAR-10 recipe (Appendix B.9): LARS, batch 1,024, no blur, strength 0.5.

    Command: `simclr pretrain --data DIR --out DIR --preset paper`
    Hardware: one GPU with 80 GB.
    Measured: nothing yet.
    Expected: 94.0% linear probe after 1,000 epochs (the paper, figure B.7).
    """
    epochs = 1000 if epochs is None else epochs
    return PretrainConfig(
        preset="paper",
        encoder=EncoderConfig(stem="small", image_size=image_size, zero_init_residual=False),
        head=HeadConfig("mlp", 2048, 128),
        views=ViewsConfig(crop_min=0.08, colour_strength=0.5, grey_p=0.2, blur_p=0.0),
        optimiser=OptimiserConfig("lars", lr=1.0, momentum=0.9, weight_decay=1e-6, warmup_epochs=_warmup(10, epochs)),
        temperature=0.5,
        batch_size=1024,
        epochs=epochs,
    )


def article(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """The article's own recipe: CIFAR-10, ResNet-50, LARS at 0.2, batch 128, crops of 0.8 to 1, 100 epochs.

    Command: `simclr pretrain --data DIR --out DIR --preset article`
    Hardware: one GPU with 16 GB.
    Measured: nothing yet.
    Expected: about 85% linear probe on its validation split (the article's own figure, with its mistakes).

    Its hyper-parameters are kept (colour strength and grey are the paper's); its mistakes are not repeated.
    There: the first convolution had no padding; the warm-up multiplied past the peak; the cosine restarted and
    never annealed; validation compared two identical views; the linear probe ran the encoder in train mode, so
    that BatchNorm drifted; LARS adapted and decayed biases and BatchNorm in spite of its exclusions.
    """
    epochs = 100 if epochs is None else epochs
    return PretrainConfig(
        preset="article",
        encoder=EncoderConfig(stem="small", image_size=image_size, zero_init_residual=False),
        head=HeadConfig("mlp", 2048, 128),
        views=ViewsConfig(crop_min=0.8, colour_strength=0.5, grey_p=0.2, blur_p=0.0),
        optimiser=OptimiserConfig("lars", lr=0.2, momentum=0.9, weight_decay=1e-6, warmup_epochs=_warmup(10, epochs)),
        temperature=0.5,
        batch_size=128,
        epochs=epochs,
    )


def folder224(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """Photographs: the ordinary stem, blur, full colour strength (the paper's ImageNet views).

    Command: `simclr pretrain --data DIR --out DIR --preset folder224`; for a few thousand images
    or fewer add `--weights imagenet --lr 0.03`.
    Hardware: one GPU with 40 GB for batch 256 at 224 px.
    Measured: nothing yet.
    Expected: unknown; it depends on the images.
    """
    epochs = 200 if epochs is None else epochs
    return PretrainConfig(
        preset="folder224",
        encoder=EncoderConfig(stem="imagenet", image_size=image_size),
        views=ViewsConfig(crop_min=0.08, colour_strength=1.0, grey_p=0.2, blur_p=0.5),
        optimiser=OptimiserConfig("sgd", lr=0.06, weight_decay=1e-4, warmup_epochs=_warmup(10, epochs)),
        temperature=0.1,
        batch_size=256,
        epochs=epochs,
    )


def cifar10_cpu(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """The most that two CPU cores learn of small images in an hour or two: ResNet-50, on views of 16, then 24 px.

    Command: `simclr pretrain --data DIR --out DIR --preset cifar10_cpu --minutes 120`
    Hardware: two CPU cores with bf16 instructions.
    Measured: 77.5% linear probe, 70.9% kNN (k=200) on CIFAR-10's test images after 126 minutes on two cores of an AMD
    EPYC (AVX512-bf16): 8,078 steps (planned for 120 minutes), 1.03 million images, four views each. Random weights:
    39.7%, 32.0%. After 15 minutes 60.8% and 49.9% (`benchmarks.training.training`, with a last tenth of the steps at 32
    px). Expected: without --minutes the length is 40 epochs.

    A stem of stride 2 without max-pool has a quarter of the work of the customary one; views of half the side have a
    quarter again, and stand for 60% of the steps. None has the images' full side: a crop of a view's mean area, drawn
    at three quarters of it, shows objects as large as the whole image does (Touvron et al. 2019, "Fixing the
    train-test resolution discrepancy"). docs/decisions.md has what was tried.
    """
    epochs = 40 if epochs is None else epochs
    sizes = ((0.5, 0.6), (0.75, 0.4))
    return PretrainConfig(
        preset="cifar10_cpu",
        encoder=EncoderConfig(stem="small_stride2", image_size=image_size),
        head=HeadConfig("mlp", 2048, 128),
        views=ViewsConfig(count=4, crop_min=0.2, colour_strength=0.5, grey_p=0.2, blur_p=0.0),
        optimiser=OptimiserConfig("lars", lr=2.0, momentum=0.9, weight_decay=1e-4, warmup_epochs=0.1 * epochs),
        loss="dcl",
        temperature=0.1,
        batch_size=128,
        resolutions=tuple(Resolution(_part(image_size, side), share) for side, share in sizes),
        epochs=epochs,
    )


def quickstart(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """A first encoder within minutes on two cores: ResNet-50, LARS, the cheapest stem that the images allow.

    Command: `simclr pretrain --data DIR --out DIR --preset quickstart`
    Hardware: two CPU cores; a GPU is used where there is one.
    Measured: see the README.
    Expected: two minutes or so for up to a few thousand small images. The number of epochs is chosen to keep
    the work the same, from 30 epochs for few images down to one.
    """
    stem: Stem = "small" if image_size < 16 else "small_stride2" if image_size <= 64 else "imagenet"
    encoder = EncoderConfig(stem=stem, image_size=image_size)
    affordable = _QUICKSTART_WORK // (max(images, 1) * (4 * encoder.smallest_strided_map) ** 2)
    epochs = min(30, max(1, affordable)) if epochs is None else epochs
    return PretrainConfig(
        preset="quickstart",
        encoder=encoder,
        head=HeadConfig("mlp", 2048, 128),
        views=ViewsConfig(crop_min=0.3, colour_strength=0.5, grey_p=0.2, blur_p=0.0),
        optimiser=OptimiserConfig("lars", lr=1.0, weight_decay=1e-4, warmup_epochs=min(1.0, max(0, epochs) / 4)),
        temperature=0.2,
        batch_size=128,
        epochs=epochs,
    )


def quickstart_digits(images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """`quickstart` for pictures of writing: no flip (a mirrored digit is no digit), gentler crops.

    Command: `simclr pretrain --data DIR --out DIR --preset quickstart_digits`
    Hardware, time: as `quickstart`.
    Measured: scikit-learn's digits, two cores (AMD EPYC, AVX512-bf16): 76 s for 14 epochs of 1,438 images;
    97.2% linear probe, 96.9% kNN (a random encoder: 93.9%, 96.1%). docs/decisions.md has what was tried.
    """
    base = quickstart(images, image_size, epochs)
    views = replace(base.views, flip_p=0.0, crop_min=0.5)
    return replace(base, preset="quickstart_digits", views=views)


# images x epochs x pixels of the first map: what two cores get through in about two minutes
_QUICKSTART_WORK = 1_350_000

PRESETS: dict[str, Preset] = {
    preset.__name__: preset
    for preset in (quickstart, quickstart_digits, cifar10_cpu, cifar10, paper, article, folder224)
}


def preset(name: str, *, images: int, image_size: int, epochs: int | None = None) -> PretrainConfig:
    """The preset called `name` for `images` training images of `image_size` pixels a side, and `epochs` epochs."""
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}; accepted: {', '.join(PRESETS)}")
    return PRESETS[name](images, image_size, epochs)


def _part(size: int, share: float) -> int:
    """A share of a size, in eights as far as it is not the whole."""
    return size if share == 1 else min(size, max(8, round(share * size / 8) * 8))


def _warmup(wanted: int, epochs: int) -> float:
    """The epochs of warm-up: as many as wanted if the run is longer, else a quarter of it."""
    if epochs > wanted:
        return float(wanted)
    logger.info("%d epochs are no more than the warm-up, which becomes a quarter of them", epochs)
    return max(0, epochs) / 4
