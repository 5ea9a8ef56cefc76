"""Remove releases that nobody needs, and what killed processes left behind, after saying what would go.

A release that an alias means or a server serves stays. A parent may go before the releases made from it: they hold all
their files, and all they inherit is the digest of an embedding space, which names the vectors in a collection.
"""

import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files.durable import sync
from core.files.locks import locked
from core.releases.archive_digest import digest_file
from core.releases.manifest import ManifestError, Release
from core.releases.model_store import ModelStore
from core.releases.servers import StateUnreadable, present_servers
from export.store import history
from export.store.errors import StoreError
from export.store.faults import aliases_of
from export.store.locks import ARCHIVING, PUBLISHING, alone

KEEP = 3


@dataclass(frozen=True)
class Removal:
    """One thing that goes: a release with its archive (then with its `version`), or something left over."""

    what: str
    paths: tuple[Path, ...]
    bytes: int
    version: int | None = None


@dataclass(frozen=True)
class Sweep:
    """What goes, and in sentences what stays although one might expect it to go."""

    removals: tuple[Removal, ...]
    kept: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How many bytes come free."""
        return sum(removal.bytes for removal in self.removals)

    def to_json(self, *, done: bool) -> dict[str, Any]:
        """The sweep as plain values; `done` says whether it was carried out."""
        removals = [{"what": one.what, "bytes": one.bytes, "paths": [*map(str, one.paths)]} for one in self.removals]
        return {"done": done, "bytes": self.bytes, "removals": removals, "kept": [*self.kept]}


def delete(store: ModelStore, reference: str, *, carry_out: bool = False) -> Sweep:
    """Remove one release and its archive; without `carry_out` only say so. Raises `StoreError` if it is needed."""
    with alone(store):
        version = store.version(reference)
        if why := needed(store).get(version):
            raise StoreError(f"{store.name}/{version} stays: {why}")
        sweep = Sweep((_of_release(store, version),))
        if carry_out:
            _remove(store, sweep, reason=None)
    return sweep


def collect(store: ModelStore, *, keep: int = KEEP, carry_out: bool = False) -> Sweep:
    """Remove all releases but the `keep` newest and those that are needed, and everything that killed processes left.

    What a living process is working on stays. Without `carry_out` nothing is removed.
    """
    if keep < 1:
        raise StoreError(f"keep is {keep}; it must be at least 1, as the newest release may be about to be promoted")
    with alone(store):
        reasons = needed(store)
        newest = store.versions()[-keep:]
        going = [version for version in store.versions() if version not in reasons and version not in newest]
        kept = [f"{store.name}/{version} stays: {why}" for version, why in reasons.items() if version not in newest]
        with _left_over(store) as (leftovers, busy):
            sweep = Sweep((*(_of_release(store, version) for version in going), *leftovers), (*kept, *busy))
            if carry_out:
                _remove(store, sweep, reason=f"collect --keep {keep}")
    return sweep


def needed(store: ModelStore) -> dict[int, str]:
    """The versions that must not go, and why; raises `StoreError` if that can't be known."""
    aliases, faults = aliases_of(store)
    if faults:
        raise StoreError(f"nothing is removed while an alias is broken: {'; '.join(faults)}")
    reasons = {version: f"{where} serves it" for version, where in served(store).items()}
    for alias, version in aliases.items():
        reasons[version] = f"it is the {alias}"
    return reasons


def served(store: ModelStore) -> dict[int, str]:
    """The versions that a server serves or rolls over to, and where that server is.

    Raises `StoreError` if a server's file can't be read, as it could be about any release.
    """
    try:
        found = present_servers(store)
    except StateUnreadable as error:
        raise StoreError(str(error)) from error
    return {
        version: f"{state.host}, process {state.pid}" for state in found for version in state.versions_of(store.name)
    }


def _of_release(store: ModelStore, version: int) -> Removal:
    paths = [store.home / str(version)]
    archive = store.archive(version)
    paths += [path for path in (archive, digest_file(archive)) if path.exists()]
    return Removal(f"release {store.name}/{version}", tuple(paths), sum(map(_bytes_of, paths)), version)


def _remove(store: ModelStore, sweep: Sweep, *, reason: str | None) -> None:
    """A release first gets a hidden name, so that nobody ever takes half of one for a release.

    Before that the history records it, as the number of a deleted release must never be given to another.
    """
    for removal in sweep.removals:
        if removal.version is not None:
            digest = _digest_of(store, removal.version)
            about = {"digest": digest, "bytes": removal.bytes, "reason": reason}
            history.append(store.home, "delete", before=removal.version, **about)
        for path in removal.paths:
            _remove_path(store, path)


def _remove_path(store: ModelStore, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        if not path.name.startswith("."):
            hidden = path.with_name(f".deleted-{path.name}-{os.getpid()}")
            os.rename(path, hidden)
            sync(path.parent)
            path = hidden
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def _digest_of(store: ModelStore, version: int) -> str | None:
    try:
        return Release(store.home / str(version)).digest
    except (ManifestError, OSError):
        return None


@contextmanager
def _left_over(store: ModelStore) -> Iterator[tuple[list[Removal], list[str]]]:
    """What killed processes left, locked so that no living one begins with it; and what can't be judged just now."""
    busy = []
    publishing, archiving = store.home / PUBLISHING, store.root / ARCHIVING
    with locked(publishing, wait=False) as nobody_publishes, locked(archiving, wait=False) as nobody_archives:
        found = [*store.home.glob(".deleted-*"), *_partial_texts(store)]
        if nobody_publishes is not None:
            found += store.home.glob(".partial-*")
        else:
            busy.append("a release is being published just now: unfinished ones stay")
        if nobody_archives is not None:
            found += [*store.root.glob(".archive-*"), *_partial_archives(store)]
        else:
            busy.append("an archive is being made just now: unfinished ones stay")
        found += _orphans(store) if None not in (nobody_publishes, nobody_archives) else []
        yield [Removal(f"left over: {path.name}", (path,), _bytes_of(path)) for path in sorted(found)], busy


def _partial_texts(store: ModelStore) -> Collection[Path]:
    """Half-written aliases; whoever writes one holds the lock that is ours now."""
    return [*(store.home / "aliases").glob(".*.partial")]


def _partial_archives(store: ModelStore) -> Collection[Path]:
    pattern = re.compile(rf"\.{re.escape(store.name)}-\d+\.mar(\.sha256)?\.partial")
    return [path for path in store.root.iterdir() if pattern.fullmatch(path.name)]


def _orphans(store: ModelStore) -> Collection[Path]:
    """Archives of releases that do not exist, and digests of such archives."""
    pattern = re.compile(rf"{re.escape(store.name)}-(\d+)\.mar(?:\.sha256)?")
    versions = store.versions()
    found = [(path, pattern.fullmatch(path.name)) for path in store.root.iterdir()]
    return [path for path, match in found if match and int(match[1]) not in versions]


def _bytes_of(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
