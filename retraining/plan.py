"""What one retraining is, decided before its first stage and kept in its folder: a killed one goes on with the same."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from core.files.durable import publish_text
from core.files.json_text import json_text
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import CHAMPION, ModelStore
from retraining.errors import PlanError
from training.recipe.presets import PRESETS

PLAN, SUMMARY = "plan.json", "summary.json"
Mode = Literal["warm", "scratch", "probe"]
MODES: tuple[Mode, ...] = get_args(Mode)
DEFAULT_PRESET = "quickstart"


@dataclass(frozen=True)
class Plan:
    """One retraining. Paths are absolute; `champion` is the release that served when it began, 0 for none.

    `mode` is where the encoder begins: "warm" with the champion's, "scratch" with random weights; "probe" keeps it as
    it is and fits a probe only. `epochs` and `minutes` give the length (0: the preset's own), `settings` are further
    KEY=VALUE of the pretraining. `labels`: the folders of `images` are labels. `launcher` starts the pretraining
    ("torchrun --nproc-per-node 8").
    """

    name: str
    store: str
    collection: str = ""
    images: str = ""
    mode: Mode = "warm"
    preset: str = DEFAULT_PRESET
    epochs: int = 0
    minutes: float = 0.0
    settings: tuple[str, ...] = ()
    seed: int = 0
    image_size: int = 0
    labels: bool = False
    int8: bool = True
    launcher: str = ""
    champion: int = 0
    champion_digest: str = ""

    @property
    def releases(self) -> ModelStore:
        """The store."""
        return ModelStore(self.store, self.name)

    @property
    def champion_folder(self) -> Path:
        """The release that served when this began."""
        return self.releases.home / str(self.champion)

    @property
    def from_collection(self) -> bool:
        """Whether it learns from a collection: one that has items, or will have those of `images`."""
        return bool(self.collection) and (not self.images or bool(self.champion))

    def write(self, folder: Path) -> None:
        """Keep it."""
        publish_text(folder / PLAN, json_text(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """The plan of a retraining that has begun."""
        try:
            values: dict[str, Any] = json.loads((folder / PLAN).read_text())
            return cls(**values | {"settings": tuple(values["settings"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise PlanError(f"{folder / PLAN} can't be read ({error}): --fresh begins another retraining") from error


def settle(asked: Plan, version: int | None) -> Plan:
    """The plan with what follows from the champion (its `version`, if there is one): where to begin, size, recipe.

    Raises `PlanError` for what can't be done, `ManifestError` for a champion that does not verify.
    """
    _check_sources(asked)
    if not version:
        if asked.mode == "probe":
            raise PlanError(f"mode is 'probe', but {asked.releases.home} has no champion whose encoder could be kept")
        return replace(asked, mode="scratch", preset=asked.preset or DEFAULT_PRESET)
    release = asked.releases.release(version)
    release.verify()
    return replace(
        asked,
        champion=version,
        champion_digest=release.digest,
        preset=asked.preset or _preset_of(release),
        image_size=asked.image_size or release.manifest.input.size,
    )


def check_champion(plan: Plan, made: int | None) -> None:
    """Raise `PlanError` if another release became the champion since the plan was made, but for the one it `made`."""
    now = plan.releases.alias(CHAMPION) or 0
    if now not in (plan.champion, made):
        raise PlanError(
            f"the champion is {plan.name}/{now} now; it was {plan.name}/{plan.champion} when this retraining began: "
            "--fresh begins another one"
        )


def differences(begun: Plan, asked: Plan) -> list[str]:
    """What was asked for differently when it was begun, in words."""
    ours, theirs = asdict(begun), asdict(asked)
    decided = ("champion", "champion_digest")
    return [
        f"{key} was {ours[key]!r}, now {theirs[key]!r}"
        for key in ours
        if ours[key] != theirs[key] and key not in decided
    ]


def _check_sources(asked: Plan) -> None:
    if not asked.collection and not asked.images:
        raise PlanError("there is nothing to learn from: give --collection, --images, or both")
    if asked.images and not Path(asked.images).exists():
        raise PlanError(f"images is {asked.images}, which does not exist")
    if asked.epochs and asked.minutes:
        raise PlanError(f"epochs ({asked.epochs}) and minutes ({asked.minutes:g}) both give the length; take one")
    if asked.preset and asked.preset not in PRESETS:
        raise PlanError(f"preset is {asked.preset!r}; it must be one of {', '.join(PRESETS)}")
    if asked.collection and not asked.images and not items_of(Path(asked.collection)):
        raise PlanError(f"{asked.collection} holds no items: there is nothing to learn from")


def items_of(collection: Path) -> int:
    """How many items a collection has; 0 where there is none."""
    from serving.collection.catalogue.opening import is_collection, open_catalogue  # a help text needs no database

    return open_catalogue(collection).items.count() if is_collection(collection) else 0


def _preset_of(release: Release) -> str:
    """The recipe that a release was trained by, if there still is one of this name."""
    try:
        name = str(release.manifest.lineage["config"]["preset"])
    except KeyError as error:
        raise ManifestError(f"release {release.manifest.title} has no recipe in its lineage: give --preset") from error
    return name if name in PRESETS else DEFAULT_PRESET
