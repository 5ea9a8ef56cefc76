"""The comparison of a new release, the challenger, with the champion: what is measured, in order, and the verdict.

Both are run as a server on this machine would run them, on the same held-out images. If the challenger has the
champion's embedding space (a new probe on the same encoder), only the probes are compared, as served.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.releases.manifest import Release
from export.comparison import gates
from export.comparison.accuracy import Accuracy, accuracy_of, served_right
from export.comparison.contender import ComparedEmbeddings, Contender, embed_all, with_logits_of
from export.comparison.gates import Gate, failures
from export.comparison.label_free import agreement, signals_of
from export.comparison.sample import SIZES, Sample, SampleSizes, choose_rows
from export.comparison.speed import race
from export.comparison.thresholds import THRESHOLDS, Thresholds
from training.data.dataset import Dataset
from training.evaluation.representations import RANDOM
from training.recipe.config import ViewsConfig, from_dict


@dataclass(frozen=True)
class Side:
    """One of the two: its release, its embeddings of the images, and what it gets right (None without labels)."""

    contender: Contender
    embedded: ComparedEmbeddings
    signals: dict[str, float]
    accuracy: Accuracy | None = None

    @property
    def release(self) -> Release:
        """The release that is compared."""
        return self.contender.release

    def to_json(self) -> dict[str, Any]:
        """Its figures, as the manifest records them."""
        choice = self.contender.choice
        form = {"form": choice.form, "device": choice.device, "image_size": self.release.manifest.input.size}
        return form | {"signals": self.signals} | (self.accuracy.to_json() if self.accuracy is not None else {})


@dataclass(frozen=True)
class Comparison:
    """Gates and figures; `champion` is None for the first release of a name.

    `differences` are challenger minus champion in points, with their intervals; `speed` is in milliseconds.
    """

    data: Dataset
    sample: Sample
    challenger: Side
    champion: Side | None
    gates: list[Gate]
    differences: dict[str, dict[str, float]] = field(default_factory=dict)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)
    thresholds: Thresholds = THRESHOLDS

    @property
    def same_space(self) -> bool:
        """Whether both have the same encoder."""
        return self.champion is not None and self.champion.release.space == self.challenger.release.space

    @property
    def failed(self) -> list[str]:
        """Why the challenger may not take the champion's place; empty if it may."""
        return failures(self.gates)

    def to_json(self) -> dict[str, Any]:
        """The manifest's `promotion`."""
        champion = self.champion
        return {
            "passed": not self.failed,
            "champion": champion.release.manifest.title if champion is not None else None,
            "champion_digest": champion.release.digest if champion is not None else None,
            "gates": [gate.to_json() for gate in self.gates],
            "figures": {
                "images": self.sample.counts(),
                "data": self.data.digest,
                "challenger": self.challenger.to_json(),
                "champion": champion.to_json() if champion is not None else None,
                "differences": self.differences,
                "speed": self.speed,
                "thresholds": asdict(self.thresholds),
            },
            "failed": self.failed,
        }


def compare(
    challenger: Release,
    champion: Release | None,
    data: Dataset,
    *,
    sizes: SampleSizes = SIZES,
    thresholds: Thresholds = THRESHOLDS,
) -> Comparison:
    """Measure both on the test images of `data` and hold the challenger against the gates.

    Raises ValueError if there are no images to compare on, `ManifestError` if a release does not verify.
    """
    sample, new = choose_rows(data, sizes), Contender(challenger, data)
    views = _views(champion or challenger)
    embedded = embed_all(new, sample, views)
    if champion is None:
        return _first(Side(new, embedded, signals_of(embedded, sample)), data, sample, thresholds)
    old = Contender(champion, data)
    same = champion.space == challenger.space
    side = _side(new, embedded, sample)
    sides = (side, _other_probe(old, side, sample) if same else _side(old, embed_all(old, sample, views), sample))
    if same:
        found, differences = _of_probes(*sides, sample, thresholds, unseen=held_out_from(champion, data))
    else:
        found, differences = _of_encoders(*sides, sample, thresholds)
    found = [gates.parity(challenger.manifest.parity), *found, gates.small(new.bytes, old.bytes, thresholds)]
    paces = {} if same else race(new, old, thresholds)
    found += [gates.quick(name, pace, thresholds) for name, pace in paces.items()]
    speed = {name: pace.to_json() for name, pace in paces.items()}
    return Comparison(data, sample, *sides, found, differences, speed, thresholds)


def _side(contender: Contender, embedded: ComparedEmbeddings, sample: Sample) -> Side:
    own = contender.release.manifest.classes
    accuracy = accuracy_of(embedded, sample, own) if sample.classes is not None else None
    return Side(contender, embedded, signals_of(embedded, sample), accuracy)


def _other_probe(contender: Contender, side: Side, sample: Sample) -> Side:
    """Another release of the same space, which differs in its logits alone."""
    embedded, accuracy = with_logits_of(contender, side.embedded, sample), side.accuracy
    if accuracy is not None:
        accuracy = replace(accuracy, served=served_right(embedded, sample, contender.release.manifest.classes))
    return Side(contender, embedded, side.signals, accuracy)


_Found = tuple[list[Gate], dict[str, dict[str, float]]]


def _of_encoders(new: Side, old: Side, sample: Sample, thresholds: Thresholds) -> _Found:
    """By labels if there are any; else by whether images find their copies, and by the dimensions in use."""
    copies = gates.not_worse("agreement", agreement(new.embedded.views), agreement(old.embedded.views), thresholds)
    found = gates.not_collapsed(new.signals, len(sample.signals), thresholds)
    measured = {"agreement": copies}
    if new.accuracy is not None and old.accuracy is not None:
        for name in ("probe", "knn"):
            measured[name] = gates.not_worse(name, getattr(new.accuracy, name), getattr(old.accuracy, name), thresholds)
            found.append(measured[name][0])
        if new.accuracy.served is not None:
            found.append(gates.above_chance(new.accuracy.served, _most_frequent(sample)))
    else:
        found += [copies[0], gates.dimensions_kept(new.signals["rankme"], old.signals["rankme"], thresholds)]
    return found, {name: difference.to_json() for name, (_, difference) in measured.items()}


def _of_probes(new: Side, old: Side, sample: Sample, thresholds: Thresholds, *, unseen: bool) -> _Found:
    """The encoder is the same; what may differ is what the release's own probe gets right.

    Unless the queries are `unseen` by the champion's probe, its accuracy on them is only reported and bounds nothing.
    """
    if new.accuracy is None or old.accuracy is None or new.accuracy.served is None:
        return [], {}
    found = [gates.above_chance(new.accuracy.served, _most_frequent(sample))]
    if old.accuracy.served is None:
        return found, {}
    gate, difference = gates.not_worse("served_probe", new.accuracy.served, old.accuracy.served, thresholds)
    return [*found, gate] if unseen else found, {"served_probe": difference.to_json()}


def held_out_from(champion: Release, data: Dataset) -> bool:
    """Whether the test images of `data` were held out when the champion's probe was fitted, as far as is on record.

    They were if it was made from the same data, or from a collection whose items were split in the same way.
    """
    lineage = champion.manifest.lineage
    if lineage.get("data", {}).get("sha256") == data.digest:
        return True
    before, now = lineage.get("collection") or {}, data.facts.get("collection") or {}
    return bool(now) and all(before.get(key) == now[key] for key in ("seed", "hold_out"))


def _first(new: Side, data: Dataset, sample: Sample, thresholds: Thresholds) -> Comparison:
    """Without a champion: embeddings that have not collapsed, and a probe that is worth having."""
    manifest = new.release.manifest
    found = [gates.parity(manifest.parity), *gates.not_collapsed(new.signals, len(sample.signals), thresholds)]
    right = served_right(new.embedded, sample, manifest.classes) if sample.classes is not None else None
    if right is not None:
        found.append(gates.above_chance(right, _most_frequent(sample)))
        random = _random_probe(manifest.metrics)
        if random is not None:
            found.append(gates.not_below_random(float(right.mean()), random, len(right)))
    return Comparison(data, sample, new, None, found, thresholds=thresholds)


def _random_probe(metrics: Mapping[str, Any]) -> float | None:
    """The accuracy of a random encoder's probe; None if the evaluation did not measure it."""
    probe = metrics.get("baselines", {}).get(RANDOM, {}).get("linear_probe")
    return None if probe is None else float(probe["accuracy"])


def _most_frequent(sample: Sample) -> float:
    labels: NDArray[np.int64] = sample.labels_of(sample.queries)
    return float(np.bincount(labels).max() / len(labels))


def _views(release: Release) -> ViewsConfig:
    """The views that the release learnt to agree on; of the champion, if there is one, so that it sets the terms."""
    try:
        return from_dict(release.manifest.lineage["config"]).views
    except (KeyError, ValueError):  # a release of another version, or one that was never trained
        return ViewsConfig()
