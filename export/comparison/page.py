"""The comparison as one page, comparison.html: the verdict, the gates, accuracies, losses, neighbours side by side.

Like the evaluation's page it refers to nothing outside itself, has no script, and escapes every text.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from core.releases.manifest import Release
from export.comparison.accuracy import share_by_class
from export.comparison.charts import Shares, bars_figure, losses_figure
from export.comparison.compare import Comparison, Side
from export.comparison.gates import Gate
from export.comparison.sheets import Sheet, sheets
from training.evaluation.pages import draw_chart, image_uri, render, thumbnail
from training.run.log import read_log
from training.run.run import LOG

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
_CLASSES_MOST = 40
_SIGNALS = {
    "alignment": "distance of two views of an image; lower: views agree",
    "uniformity": "lower: spread out; 0 is collapse",
    "spread": "1 is spread evenly; 0 is collapse",
    "rankme": "dimensions in use",
    "agreement": "views that find their copy among all",
}


def page(found: Comparison) -> str:
    """The page, as HTML. Raises OSError if an image on it can't be read."""
    new, old = found.challenger, found.champion
    logs = [_log(side) for side in (new, old)]
    words = "The loss of both runs over their steps"
    differing, others = sheets(new.embedded, None if found.same_space or old is None else old.embedded)
    return render(
        _TEMPLATE,
        found=found,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        facts=_facts(found),
        gates=[_gate(gate) for gate in found.gates],
        accuracies=draw_chart("Accuracies of both", lambda theme: bars_figure(_shares(found), theme)),
        losses=draw_chart(words, lambda theme: losses_figure(logs[0], logs[1], theme)),
        picture=_loss_picture(old.release) if old is not None and not logs[1] else None,
        signals=[(name, new.signals[name], _signal(old, name), text) for name, text in _SIGNALS.items()],
        classes=_classes(found),
        differing=[_shown(one, found) for one in differing],
        others=[_shown(one, found) for one in others],
    )


def _facts(found: Comparison) -> dict[str, str]:
    counts = ", ".join(f"{count:,} {name}" for name, count in found.sample.counts().items())
    facts = {"Images": f"{found.data.facts['name']}: {counts}", "Challenger": _side(found.challenger)}
    return facts | ({"Champion": _side(found.champion)} if found.champion is not None else {})


def _side(side: Side) -> str:
    manifest, choice = side.release.manifest, side.contender.choice
    of_data = manifest.lineage.get("data") or {}
    counts = ", ".join(f"{count:,} {split}" for split, count in (of_data.get("counts") or {}).items())
    data = f", made with {of_data.get('name')} ({counts})" if of_data else ""
    return (
        f"{manifest.title}, {manifest.architecture} at {manifest.input.size} px, {choice.form} on {choice.device}"
        f"{data}; digest {side.release.digest[:16]}"
    )


def _gate(gate: Gate) -> dict[str, Any]:
    return {
        "name": gate.name.replace("_", " "),
        "passed": gate.passed,
        "why": gate.why,
        **{key: _number(gate.name, getattr(gate, key)) for key in ("value", "champion", "bound")},
    }


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "file_bytes":
        return f"{value / 1e6:.2f} MB"
    if name.endswith("_ms"):
        return f"{value:.2f} ms"
    if name in ("probe", "knn", "served_probe", "agreement", "probe_above_chance", "probe_of_random"):
        return f"{value:.1%}"
    return f"{value:.3g}"


def _shares(found: Comparison) -> dict[str, Shares]:
    """What the bars show: accuracies if there are labels, and whether views find their copies."""
    new, old = found.challenger, found.champion

    def pair(key: str) -> Shares | None:
        mine, others = (side.to_json().get(key) if side is not None else None for side in (new, old))
        return None if mine is None else (mine, others)

    names = {"probe": "probe fitted anew", "knn": "kNN, k=10", "served_probe": "own probe, as served"}
    shares = {text: found_pair for key, text in names.items() if (found_pair := pair(key)) is not None}
    shares["views find their copy"] = (new.signals["agreement"], _signal(old, "agreement"))
    return shares


def _signal(side: Side | None, name: str) -> float | None:
    return None if side is None else side.signals[name]


def _classes(found: Comparison) -> list[dict[str, Any]]:
    """The accuracy of both by label, the largest loss first; of very many labels only those at both ends."""
    new, old = found.challenger.accuracy, found.champion.accuracy if found.champion is not None else None
    if new is None or old is None:
        return []
    key = "served" if found.same_space else "probe"
    right = [getattr(one, key) for one in (new, old)]
    if any(one is None for one in right):
        return []
    names = found.sample.names_of(found.sample.queries)
    mine, others = (share_by_class(one, names) for one in right)
    counts = dict(zip(*np.unique(names, return_counts=True), strict=True))
    rows: list[dict[str, Any]] = [
        {"name": name, "challenger": share, "champion": others[name], "images": int(counts[name])}
        for name, share in mine.items()
    ]
    rows.sort(key=lambda row: float(row["challenger"] - row["champion"]))
    return rows if len(rows) <= _CLASSES_MOST else rows[: _CLASSES_MOST // 2] + rows[-_CLASSES_MOST // 2 :]


def _shown(sheet: Sheet, found: Comparison) -> dict[str, Any]:
    """A query and both rows of neighbours as pictures; each neighbour is right, wrong, or unknown (None)."""
    sample = found.sample
    query = _thumbnail(found, int(sample.queries[sheet.query]))

    def row(pairs: list[tuple[int, float]]) -> list[dict[str, Any]]:
        shown = [_thumbnail(found, int(sample.gallery[place])) | {"score": score} for place, score in pairs]
        return [one | {"right": None if query["label"] is None else one["label"] == query["label"]} for one in shown]

    return {"query": query, "shared": sheet.shared, "rows": [row(sheet.challenger), row(sheet.champion)]}


def _thumbnail(found: Comparison, row: int) -> dict[str, Any]:
    label = None if found.sample.classes is None else str(found.sample.names_of(np.array([row]))[0])
    return {**thumbnail(found.data, row), "label": label}


def _log(side: Side | None) -> list[dict[str, Any]]:
    """The lines of the run's log in the release; none in an older release."""
    return [] if side is None else read_log(side.release.folder / "report" / LOG)


def _loss_picture(release: Release) -> str | None:
    """The picture of the loss that an older release carries in place of its log, as a data URI."""
    path = release.folder / "report/loss.png"
    return image_uri("png", path.read_bytes()) if path.is_file() else None
