"""Which stages a retraining has, in order; `retraining.commands` has what each runs."""

from dataclasses import dataclass

from retraining.plan import Plan


@dataclass(frozen=True)
class Stage:
    """A stage: its name, and what it does in a few words."""

    name: str
    what: str


_STAGES = (
    Stage("ingest", "the folder's images into the collection"),
    Stage("freeze", "the collection as it is now, as pixels"),
    Stage("pretrain", "SimCLR"),
    Stage("evaluate", "probe and kNN on the held-out images"),
    Stage("export", "a release, and its comparison with the champion"),
    Stage("embed", "every item by the new release, and its index"),
    Stage("promote", "the new release becomes the champion, and servers follow"),
)


def stages_of(plan: Plan) -> list[Stage]:
    """The stages that this plan has."""
    skipped: set[str] = set()
    if not (plan.images and plan.collection and plan.champion):
        skipped.add("ingest")
    if plan.mode == "probe":
        skipped |= {"pretrain", "evaluate", "embed"}
    if not plan.collection:
        skipped.add("embed")
    return [stage for stage in _STAGES if stage.name not in skipped]
