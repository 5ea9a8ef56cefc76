"""Releases as text for a terminal: the list, one release, and what two differ in."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.releases.manifest import Manifest, Release
from core.releases.model_store import ModelStore
from export.store.records import ReleaseRecord, flat, verdict_of

_HEADINGS = ("release", "aliases", "created", "probe", "kNN", "verdict", "size", "images", "parent")
_NUMBERS = (3, 4, 6, 7)
DEFAULT_STORE = Path("model_store")
_MOST = 100  # characters of a value


def table(records: Sequence[ReleaseRecord]) -> str:
    """The list of releases; the reasons why some can't be read follow."""
    lines = [_HEADINGS, *map(_line, records)]
    faults = [f"{one.name}/{one.version}: {one.fault}" for one in records if one.fault is not None]
    return "\n".join([columns(lines, right=_NUMBERS), *faults])


def release_text(release: Release, aliases: Sequence[str], faults: Sequence[str], archive: str | None) -> str:
    """Everything that the manifest says, part by part, and whether it verifies."""
    manifest = release.manifest
    parts: list[tuple[str, list[tuple[str, str]]]] = [
        ("release", _about(release, aliases, faults, archive)),
        ("promotion", [*_promotion(manifest.promotion)]),
        ("formats", [(form, _gate(gate)) for form, gate in manifest.gates.items()]),
        ("parity", [(key, shown(value)) for key, value in flat(manifest.parity)]),
        ("metrics", [(key, shown(value)) for key, value in flat(manifest.metrics) if _own(key)]),
        ("lineage", [(key, shown(value)) for key, value in flat(manifest.lineage)]),
        ("files", [(name, f"{size(e.bytes):>10}  {e.sha256[:16]}") for name, e in sorted(manifest.files.items())]),
    ]
    return "\n\n".join(f"{title}\n{_indented(lines)}" for title, lines in parts if lines)


def differences_text(found: Mapping[str, Any]) -> str:
    """What `export.store.differences` found."""
    one, other = found["releases"]
    parts = [f"{one} and {other}: {'one embedding space' if found['same_space'] else 'two embedding spaces'}"]
    for part in ("release", "config", "data"):
        lines = [(key, *map(shown, sides)) for key, sides in found[part].items()]
        parts.append(_compared(part, (one, other), lines))
    lines = [
        (key, shown(pair["one"]), shown(pair["other"]), _signed(pair["difference"]))
        for key, pair in found["metrics"].items()
        if _own(key)
    ]
    parts.append(_compared("metrics", (one, other, "difference"), lines))
    for part in ("files", "libraries"):
        lines = [(key, *(shown(side)[:16] for side in sides)) for key, sides in found[part].items()]
        parts.append(_compared(part, (one, other), lines))
    return "\n\n".join(parts)


def columns(lines: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Lines with equally many cells in aligned columns, two spaces apart; those at `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(text: str, at: int) -> str:
        return text.rjust(widths[at]) if at in right else text.ljust(widths[at])

    return "\n".join("  ".join(cell(text, at) for at, text in enumerate(line)).rstrip() for line in lines)


def shown(value: Any) -> str:
    """A value of a manifest in a few characters."""
    if value is None:
        return "–"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def size(count: int) -> str:
    """A number of bytes as people read it, in powers of ten."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} B"


def typed(command: str, *words: object, store: ModelStore) -> str:
    """What to type for a command on the releases of a name."""
    where = ("--name", store.name, *(("--store", store.root) if store.root != DEFAULT_STORE else ()))
    return shlex.join(["simclr", command, *map(str, (*words, *where))])


def _line(record: ReleaseRecord) -> tuple[str, ...]:
    return (
        f"{record.name}/{record.version}",
        ",".join(record.aliases),
        record.created or "",
        _share(record.probe),
        _share(record.knn),
        "can't be read" if record.fault is not None else record.verdict or "not compared",
        size(record.bytes) if record.bytes is not None else "",
        f"{record.images:,}" if record.images is not None else "",
        record.parent or "",
    )


def _own(key: str) -> bool:
    """Whether a figure is the encoder's; those of its baselines are in the report, and in JSON."""
    return not key.startswith("baselines.")


def _share(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"


def _about(
    release: Release, aliases: Sequence[str], faults: Sequence[str], archive: str | None
) -> list[tuple[str, str]]:
    manifest = release.manifest
    return [
        ("title", manifest.title),
        ("aliases", ", ".join(aliases) or "none"),
        ("digest", release.digest),
        ("embedding space", release.space if release.space != release.digest else "its own"),
        ("created", manifest.created),
        ("encoder", f"{manifest.architecture}, {manifest.embedding_dim} numbers, {manifest.input.size} px"),
        ("labels", _labels(manifest)),
        ("archive", archive or "none"),
        ("verified", "yes" if not faults else "NO: " + "; ".join(faults)),
    ]


def _labels(manifest: Manifest) -> str:
    return f"{len(manifest.classes)}: {', '.join(manifest.classes)}" if manifest.classes is not None else "none"


def _promotion(promotion: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not promotion:
        yield "verdict", "not compared with a champion"
        return
    yield "verdict", verdict_of(promotion) or ""
    for gate in promotion.get("gates", ()):
        sides = f"{shown(gate.get('value'))} (champion {shown(gate.get('champion'))}, bound {shown(gate.get('bound'))})"
        yield str(gate.get("name")), f"{'passed' if gate.get('passed') else 'FAILED'}  {sides}  {gate.get('why') or ''}"
    for sentence in promotion.get("failed", ()):
        yield "failed", str(sentence)


def _gate(gate: Mapping[str, Any]) -> str:
    return "passed" if gate.get("passed") else f"left out: {'; '.join(map(str, gate.get('failed', ())))}"


def _indented(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {line}" for line in columns(lines).splitlines())


def _compared(title: str, sides: Sequence[str], lines: Sequence[tuple[str, ...]]) -> str:
    if not lines:
        return f"{title}: the same"
    return columns([(title, *sides), *lines])


def _signed(difference: float | None) -> str:
    return f"{difference:+.6g}" if difference is not None else ""
