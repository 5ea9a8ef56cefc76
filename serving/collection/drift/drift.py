"""What came into a collection since its encoder was trained, and whether that is reason to train again.

Old are the items whose pictures the training could see, which the release lists (`core.images.seen`), however and
whenever they came. An older release has no list: then the old items are those last written up to the sequence number
that it records or, if it was not trained on a collection, those created before it. The figures are of up to 1,000 items
of each sort, chosen at random with a fixed seed.

The rule (`needed`): a fifth of the items is new; or there are at least 100 new ones, and their embeddings are
distributed otherwise (p < 0.01 and MMD^2 > 0.002), or the probe is unsure (largest probability < 0.5) of a share of
them that is more than 10 points above that of the old ones. On CIFAR-10
embeddings, 1,000 old against 1,000 new items, 20 draws each, MMD^2 was:

    drawn alike                               -0.0003 to 0.0004
    a tenth of the new is of an unseen class   0.0002 to 0.0017, mean 0.0008
    a fifth                                    0.0005 to 0.0059, mean 0.0032
    half                                       0.0070 to 0.0378, mean 0.018
    only half of the classes go on             0.0021 to 0.0170, mean 0.0068

so the bound lies far above chance, and below the case that only half of the classes go on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.images.seen import Contents
from core.releases.manifest import Release
from serving.collection.catalogue.filters import EVERYTHING, Bound, Range
from serving.collection.catalogue.interface import Catalogue
from serving.collection.catalogue.vectors import Rows, Vectors
from serving.collection.drift.discrepancy import discrepancy

SAMPLE = 1_000
NEW_SHARE = 0.2
LEAST_NEW = 100
LARGEST_P = 0.01
LARGEST_MMD2 = 0.002
UNSURE = 0.5
UNSURE_POINTS = 0.1

ToldBy = Literal["picture", "sequence", "time"]


@dataclass(frozen=True, eq=False)
class Reference:
    """What a release's training could see: `seen`, or for an older release (None) `seq` and `created`.

    `seq` is 0 where it saw no collection; `created` is milliseconds since 1970; `probe` is float32 (C, D + 1), its bias
    last.
    """

    title: str
    space: str
    seq: int
    created: int
    probe: NDArray[np.float32] | None
    seen: Contents | None = None

    @classmethod
    def of(cls, release: Release) -> "Reference":
        """As the release's manifest says."""
        manifest = release.manifest
        created = int(datetime.fromisoformat(manifest.created).timestamp() * 1000)
        seq = _sequence(manifest.lineage)
        return cls(manifest.title, release.space, seq, created, release.probe(), release.seen())

    @property
    def told_by(self) -> ToldBy:
        """What distinguishes old items from new ones."""
        if self.seen is not None:
            return "picture"
        return "sequence" if self.seq else "time"


@dataclass(frozen=True)
class Drift:
    """The figures; None stands for those that need more items, or a probe.

    `mmd2` and `p` see `serving.collection.drift.discrepancy`; `unsure_old` and `unsure_new` are shares.
    """

    release: str
    told_by: ToldBy
    items: int
    new: int
    compared_old: int
    compared_new: int
    mmd2: float | None
    p: float | None
    unsure_old: float | None
    unsure_new: float | None

    @property
    def new_share(self) -> float:
        """New items among all; 0 for an empty collection."""
        return self.new / self.items if self.items else 0.0

    def to_json(self) -> dict[str, Any]:
        """The figures, and what the rule says of them."""
        is_needed, reasons = needed(self)
        return {**asdict(self), "new_share": self.new_share, "needed": is_needed, "reasons": reasons}


def drift(catalogue: Catalogue, reference: Reference, *, sample: int = SAMPLE, seed: int = 0) -> Drift:
    """The figures of a collection as it is; `sample` items of each sort are compared at most."""
    with catalogue.reading():
        rows = catalogue.items.rows_matching(EVERYTHING)
        new = _new_rows(catalogue, reference)
        random = np.random.default_rng(seed)
        old, fresh = (
            catalogue.vectors.at(_some(of, sample, random), reference.space)[1]
            for of in (np.setdiff1d(rows, new, assume_unique=True), new)
        )
    found = discrepancy(old, fresh, seed=seed) if min(len(old), len(fresh)) >= 2 else None
    return Drift(
        reference.title,
        reference.told_by,
        len(rows),
        len(new),
        len(old),
        len(fresh),
        found.mmd2 if found is not None else None,
        found.p if found is not None else None,
        _unsure(old, reference.probe),
        _unsure(fresh, reference.probe),
    )


def needed(found: Drift) -> tuple[bool, list[str]]:
    """Whether to train again, and why, or why not."""
    reasons = []
    if found.items and found.new_share >= NEW_SHARE:
        reasons.append(f"{found.new} of {found.items} items are new, a share of at least {NEW_SHARE:.0%}")
    if found.new >= LEAST_NEW and found.compared_new >= LEAST_NEW:
        if found.p is not None and found.mmd2 is not None and found.p < LARGEST_P and found.mmd2 > LARGEST_MMD2:
            reasons.append(
                f"new embeddings are distributed otherwise: MMD^2 {found.mmd2:.4f} is above {LARGEST_MMD2}, "
                f"p {found.p:.3f} below {LARGEST_P}"
            )
        old, new = found.unsure_old, found.unsure_new
        if old is not None and new is not None and new - old > UNSURE_POINTS:
            reasons.append(f"the probe is unsure of {new:.0%} of new items, and of {old:.0%} of old ones")
    return bool(reasons), reasons


def _sequence(lineage: Mapping[str, Any]) -> int:
    """The last write that the training could see; 0 where it did not learn from a collection."""
    collection = lineage.get("collection")
    seq = collection.get("seq") if isinstance(collection, Mapping) else None
    return seq if isinstance(seq, int) else 0


def _new_rows(catalogue: Catalogue, reference: Reference) -> Rows:
    if reference.seen is not None:
        rows, shown = catalogue.items.contents()
        return rows[~np.isin(shown, reference.seen)]
    if reference.seq:
        return catalogue.items.rows_since(reference.seq)
    return catalogue.items.rows_matching(Range("created", low=Bound(reference.created, inclusive=True)))


def _some(rows: Rows, count: int, random: np.random.Generator) -> Rows:
    return rows if len(rows) <= count else random.choice(rows, count, replace=False)


def _unsure(vectors: Vectors, probe: NDArray[np.float32] | None) -> float | None:
    """The share of embeddings (N, D) whose largest probability is below `UNSURE`."""
    if probe is None or not len(vectors):
        return None
    logits = vectors @ probe[:, :-1].T + probe[:, -1]
    largest = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    return float(np.mean(largest < UNSURE))
