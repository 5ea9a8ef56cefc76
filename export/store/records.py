"""What the store holds, as plain values: a record for every release, even for one that can't be read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.releases.manifest import FILE_NAME, ManifestError, Release, is_name
from core.releases.model_store import ModelStore
from export.store.faults import aliases_of


@dataclass(frozen=True)
class ReleaseRecord:
    """A release in a list. `images` counts all splits, `bytes` all files; `fault` says why it can't be read."""

    name: str
    version: int
    aliases: tuple[str, ...]
    created: str | None = None
    probe: float | None = None
    knn: float | None = None
    verdict: str | None = None
    bytes: int | None = None
    archive: bool = False
    parent: str | None = None
    images: int | None = None
    fault: str | None = None


def names_in(root: Path) -> list[str]:
    """The names in the store, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_name(path.name))


def records(store: ModelStore) -> list[ReleaseRecord]:
    """A record for each version, the oldest first."""
    aliases, _ = aliases_of(store)
    return [
        _record(store, version, tuple(alias for alias, meant in aliases.items() if meant == version))
        for version in store.versions()
    ]


def verdict_of(promotion: Mapping[str, Any]) -> str | None:
    """What the comparison with the champion found, in a few words; None without a comparison."""
    if not promotion:
        return None
    against = f" against {promotion['champion']}" if promotion.get("champion") else ""
    return ("passed" if promotion.get("passed") else "failed") + against


def number_at(tree: Any, *path: str) -> float | None:
    """The number at a path in nested dictionaries; None if there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return float(tree) if isinstance(tree, int | float) and not isinstance(tree, bool) else None


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dictionaries under its dotted path."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _record(store: ModelStore, version: int, aliases: tuple[str, ...]) -> ReleaseRecord:
    archive = store.archive(version).is_file()
    try:
        release = Release(store.home / str(version))
        size = (release.folder / FILE_NAME).stat().st_size
    except (ManifestError, OSError) as error:
        return ReleaseRecord(store.name, version, aliases, archive=archive, fault=str(error))
    manifest = release.manifest
    counts = manifest.lineage.get("data", {}).get("counts", {})
    return ReleaseRecord(
        store.name,
        version,
        aliases,
        manifest.created,
        number_at(manifest.metrics, "linear_probe", "accuracy"),
        number_at(manifest.metrics, "knn", "k10"),
        verdict_of(manifest.promotion),
        size + sum(entry.bytes for entry in manifest.files.values()),
        archive,
        _text(manifest.lineage.get("parent")),
        sum(counts.values()) if counts else None,
    )


def _text(parent: Any) -> str | None:
    """A parent in words; manifests have it as "name/3", or as an object with its digest."""
    if isinstance(parent, Mapping):
        parent = parent.get("release") or parent.get("title") or parent.get("digest")
    return str(parent) if parent is not None else None
