"""The model store: which releases of a name there are, and which of them each alias means.

    model_store/<name>/<version>/            immutable releases (`core.releases.manifest`)
    model_store/<name>/aliases/<alias>       a small text file with a version, replaced as a whole
    model_store/<name>-<version>.mar         a release's archive for TorchServe
    model_store/<name>-<version>.mar.sha256  its digest, recorded when it was published

The alias `champion` is the release that serves: a server follows it, and starts with it. `previous` is the one before,
for a rollback; `challenger` is one that was made and not promoted yet.
"""

from pathlib import Path
from typing import Literal, get_args

from core.files.durable import publish_text
from core.releases.manifest import ManifestError, Release, check_name

Alias = Literal["champion", "challenger", "previous"]
ALIASES: tuple[Alias, ...] = get_args(Alias)
CHAMPION: Alias = "champion"


class ModelStore:
    """The releases of one name."""

    def __init__(self, root: Path | str, name: str) -> None:
        """`root` is the store, `model_store`; raises ValueError if `name` can't name a release."""
        self.root = Path(root)
        self.name = check_name(name)
        self.home = self.root / name

    def versions(self) -> list[int]:
        """The published versions, oldest first."""
        return versions_in(self.home)

    def aliases(self) -> dict[Alias, int]:
        """Every alias that is set, with its version."""
        found = {alias: self.alias(alias) for alias in ALIASES}
        return {alias: version for alias, version in found.items() if version is not None}

    def alias(self, alias: Alias) -> int | None:
        """The version that an alias means, None if it is not set; raises `ManifestError` for a broken file."""
        try:
            text = self._file(alias).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        if not (text.isascii() and text.isdigit()):
            raise ManifestError(f"{self._file(alias)} holds {text!r:.80}; it must be a version, such as 3")
        return int(text)

    def set_alias(self, alias: Alias, version: int | None) -> None:
        """Let an alias mean an existing version, or with None remove it; on disk when this returns."""
        if version is None:
            self._file(alias).unlink(missing_ok=True)
            return
        self.release(version)
        self._file(alias).parent.mkdir(parents=True, exist_ok=True)
        publish_text(self._file(alias), f"{version}\n")

    def version(self, reference: str | int) -> int:
        """The version that "3", 3 or an alias means; raises `ManifestError` if there is no such release."""
        text = str(reference)
        found = self.alias(text) if text in ALIASES else int(text) if text.isascii() and text.isdigit() else None
        if found is None or found not in self.versions():
            there = ", ".join([*map(str, self.versions()), *self.aliases()]) or "none"
            raise ManifestError(f"{self.home} has no release {text!r:.80}; there are: {there}")
        return found

    def release(self, reference: str | int) -> Release:
        """The release of a version or alias, its manifest read; `verify` it before its files are believed."""
        return Release(self.home / str(self.version(reference)))

    def archive(self, version: int) -> Path:
        """The path of the release's archive for TorchServe, whether or not it exists."""
        return self.root / f"{self.name}-{version}.mar"

    def _file(self, alias: Alias) -> Path:
        return self.home / "aliases" / alias


def versions_in(home: Path) -> list[int]:
    """The published versions in the folder of a name, oldest first; none if there is no such folder."""
    if not home.is_dir():
        return []
    return sorted(int(folder.name) for folder in home.iterdir() if folder.is_dir() and folder.name.isdigit())


def find_release(reference: str, root: Path | str = "model_store") -> Release:
    """The release in a folder, or `name/3` or `name/champion` in the store `root`, or the same with a store in front.

    Raises `ManifestError` if there is none.
    """
    folder = Path(reference)
    if folder.is_dir() or len(folder.parts) < 2:
        return Release(folder)
    store = folder.parent.parent if len(folder.parts) > 2 else Path(root)
    return ModelStore(store, folder.parent.name).release(folder.name)
