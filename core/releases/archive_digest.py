"""The digest of a whole archive (.mar), recorded beside it when it is published: it covers the code inside.

`digits-1.mar.sha256` is a line as `sha256sum` writes it, so `sha256sum -c digits-1.mar.sha256` checks it too.
"""

import re
from pathlib import Path

from core.files.durable import publish_text, sha256_of
from core.releases.manifest import ManifestError

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)\n?")


def digest_file(archive: Path) -> Path:
    """Where an archive's digest is recorded."""
    return archive.with_name(f"{archive.name}.sha256")


def record(archive: Path, digest: str) -> None:
    """Record an archive's digest, hex SHA-256."""
    publish_text(digest_file(archive), f"{digest}  {archive.name}\n")


def recorded(archive: Path) -> str | None:
    """The recorded digest; None if there is none, as beside older archives. `ManifestError` if it can't be read."""
    path = digest_file(archive)
    try:
        line = _LINE.fullmatch(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        line = None
    if line is None or line[2] != archive.name:
        raise ManifestError(f"{path} is broken; it must be the line of `sha256sum {archive.name}`")
    return line[1]


def check_digest(archive: Path) -> bool:
    """Whether the archive is the one that was published; False if no digest was recorded.

    Raises `ManifestError` if it was altered. It reads the whole archive.
    """
    expected = recorded(archive)
    if expected is None:
        return False
    found = sha256_of(archive)
    if found != expected:
        raise ManifestError(
            f"{archive} was altered since it was published: its SHA-256 is {found}, {digest_file(archive).name} says "
            f"{expected}; restore it, or build it again with `simclr export`"
        )
    return True


def unrecorded(archive: Path) -> str:
    """What is said about an archive without a recorded digest."""
    return (
        f"{archive} has no recorded digest ({digest_file(archive).name}), as it was built by an older version: its "
        "graphs are checked, the code in it is not; a new `simclr export` records one"
    )
