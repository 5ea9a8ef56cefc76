"""The encoder on other data than it was trained on: the same probe, kNN and baselines on another data folder.

The encoder stays as it is; fine-tuning is only on the data that is evaluated.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.data.dataset import Dataset
from training.evaluation.label_splits import LabelSplits, lacking
from training.evaluation.representations import PIXELS, Representation, raw_pixels
from training.evaluation.subject import Home, Subject


def load_targets(folders: Sequence[Path], *, image_size: int) -> dict[str, Dataset]:
    """The data sets in `folders` by their names, each once; a name that two have gets its digest's beginning.

    Raises ValueError for one whose images are not of `image_size` px or that lacks labels, `SourceError` for a
    folder that holds none.
    """
    found: dict[str, Dataset] = {}
    for folder in folders:
        dataset = Dataset.load(folder)
        _check(dataset, image_size)
        if dataset.digest not in {other.digest for other in found.values()}:
            name = str(dataset.facts["name"])
            found[name if name not in found else f"{name} ({dataset.digest[:8]})"] = dataset
    return found


def transfer(dataset: Dataset, representations: Sequence[Representation], out: Path) -> dict[str, Any]:
    """Probe, kNN and few labels of `dataset` by each representation, on its own train, validation and test.

    The first representation's figures with "dataset" (digest), "counts" and "baselines" (the other ones' by name).
    "confusion" is the first one's only. Raw pixels are centred anew, at the mean of these train images. What is
    measured is kept below `out`.
    """
    home = Home(out / f"transfer-{dataset.digest[:12]}")
    splits = LabelSplits.of(dataset)
    moved = [raw_pixels(dataset) if one.name == PIXELS else one for one in representations]
    first, *others = [Subject(one, dataset, home) for one in moved]
    facts = {"dataset": dataset.digest, "counts": dataset.facts["counts"]}
    own, baselines = first.measure(splits), {one.name: one.measure(splits) for one in others}
    for figures in baselines.values():
        del figures["confusion"]
    return facts | own | {"baselines": baselines}


def _check(dataset: Dataset, image_size: int) -> None:
    if dataset.image_size != image_size:
        raise ValueError(
            f"{dataset.folder} has images of {dataset.image_size} px, the checkpoint learnt at {image_size} px; "
            f"prepare it again with `simclr prepare --image-size {image_size}`"
        )
    missing = lacking(dataset)
    if missing is not None:
        raise ValueError(f"{dataset.folder} is nothing to transfer to: {missing}")
