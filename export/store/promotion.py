"""Which release serves: promotion and rollback, one at a time for a name, and harmless if killed at any moment.

Only aliases are written, each as a whole; servers follow them. At every moment `champion` means a release that
verifies. A promotion writes `previous` first: one that is cut off has changed nothing yet, or everything that matters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.releases.manifest import ManifestError, Release
from core.releases.model_store import CHAMPION, ModelStore
from export.store import history
from export.store.errors import StoreError
from export.store.faults import faults_of
from export.store.locks import alone


def promote(store: ModelStore, reference: str, *, force: bool = False, reason: str | None = None) -> dict[str, Any]:
    """Make a release the champion; returns the line of the history.

    Raises `StoreError` for a release that does not verify or has no archive, even with `force`; and without `force` for
    one that its comparison with the present champion speaks against.
    """
    with _mended(store):
        version = store.version(reference)
        champion = store.alias(CHAMPION)
        if version == champion:
            raise StoreError(f"{store.name}/{version} is the champion already")
        check_fit(store, version)
        doubts = doubts_of(store, version, champion)
        if doubts and not force:
            raise StoreError(f"{store.name}/{version} is not promoted: {'; '.join(doubts)}; --force overrides this")
        if champion is not None:
            store.set_alias("previous", champion)
        store.set_alias(CHAMPION, version)
        if store.alias("challenger") == version:
            store.set_alias("challenger", None)
        about = {"forced": bool(doubts), "reason": reason, "doubts": doubts}
        return history.append(store.home, "promote", before=champion, after=version, **about)


def roll_back(store: ModelStore, *, expected: str | None = None, reason: str | None = None) -> dict[str, Any]:
    """Exchange champion and previous; returns the line of the history.

    With `expected` only if that release is the champion: for programs, as a second rollback undoes the first.
    Raises `StoreError` if there is no previous release, or it does not verify or has no archive.
    """
    with _mended(store):
        champion, previous = store.alias(CHAMPION), store.alias("previous")
        if previous is None or champion is None or previous == champion:
            raise StoreError(f"{store.name} has no previous release to go back to; promote one")
        if expected is not None and store.version(expected) != champion:
            raise StoreError(f"{store.name}/{champion} is the champion, not {expected}: nothing was rolled back")
        check_fit(store, previous)
        store.set_alias(CHAMPION, previous)
        store.set_alias("previous", champion)
        about = {"forced": False, "reason": reason}
        return history.append(store.home, "rollback", before=champion, after=previous, **about)


def check_fit(store: ModelStore, version: int) -> None:
    """Raise `StoreError` unless the release verifies and has an archive that does."""
    if faults := faults_of(store, version):
        raise StoreError(f"{store.name}/{version} is not fit to serve: {'; '.join(faults)}")
    if not (path := store.archive(version)).is_file():
        raise StoreError(f"{store.name}/{version} has no archive {path}: export the release again, which builds it")


def doubts_of(store: ModelStore, version: int, champion: int | None) -> list[str]:
    """What its comparison says against promoting a release now; a first champion needs no comparison."""
    verdict = store.release(version).manifest.promotion
    doubts = []
    if verdict and not verdict.get("passed"):
        doubts += [f"its gates failed: {'; '.join(map(str, verdict.get('failed', ()))) or 'no reason is given'}"]
    if champion is None:
        return doubts
    try:
        present = Release(store.home / str(champion))
    except (ManifestError, OSError) as error:
        return [*doubts, f"the champion can't be read, so nothing can have been compared with it: {error}"]
    if not verdict or not verdict.get("champion"):
        doubts.append(f"it was never compared with the champion {present.manifest.title}")
    elif verdict.get("champion_digest") != present.digest:
        doubts.append(f"it was compared with {verdict['champion']}, but the champion is {present.manifest.title} now")
    return doubts


@contextmanager
def _mended(store: ModelStore) -> Iterator[None]:
    """Hold the lock of the name, with what a killed process left undone put right."""
    with alone(store):
        _mend(store)
        yield


def _mend(store: ModelStore) -> None:
    """Write the line that a killed process could not write, and repair the aliases if it was cut off between two."""
    lines = [line for line in history.read(store.home) if line["action"] != "delete"]
    champion = store.alias(CHAMPION)
    last = lines[-1] if lines else {"from": None, "to": None}
    before = last["to"] if last["to"] != champion else last["from"]
    if champion is not None and store.alias("previous") == champion:
        store.set_alias("previous", before if before in store.versions() and before != champion else None)
    if champion is not None and store.alias("challenger") == champion:
        store.set_alias("challenger", None)
    if champion != last["to"]:
        about = {
            "forced": False,
            "reason": "found so: the process that set it was killed, or someone set it by hand",
        }
        history.append(store.home, "found", before=last["to"], after=champion, **about)
