"""Names in zips as common tools write them are those of the folder that was packed."""

import logging
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from core.images.folders import SourceError, ZipSource

FOLDER = ["Äpfel/grün é.png", "plain/a.png", "日本/写真.png"]
CONTENT = b"picture"


class Named(zipfile.ZipInfo):
    """A member whose name is written as these bytes, with or without the UTF-8 flag."""

    raw: bytes
    flag: int

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.raw, self.flag


def packed(path: Path, *names: bytes, flag: bool = False, system: int = 3, extra: bytes = b"") -> ZipSource:
    """A zip with members of these raw names."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = Named(f"{number}")
            info.raw, info.flag, info.create_system, info.extra = name, 0x800 if flag else 0, system, extra
            archive.writestr(info, CONTENT)
    return ZipSource(path)


def assert_holds(source: ZipSource, names: list[str]) -> None:
    assert list(source.names()) == sorted(names)
    assert sorted(source.sizes()) == sorted(names)
    assert [source.read(name) for name in names] == [CONTENT] * len(names)


@pytest.mark.parametrize("flag", [True, False])
def test_utf8_is_read_with_the_flag_and_without_it(tmp_path: Path, flag: bool) -> None:
    assert_holds(packed(tmp_path / "a.zip", *(name.encode() for name in FOLDER), flag=flag), FOLDER)


@pytest.mark.parametrize("prefix", ["", ".\\", "C:\\", "\\"])
def test_windows_separators_are_folders(tmp_path: Path, prefix: str) -> None:
    names = [f"{prefix}{name}".replace("/", "\\").encode() for name in FOLDER]
    assert_holds(packed(tmp_path / "a.zip", *names, b"plain\\", flag=True, system=0), FOLDER)


@pytest.mark.parametrize("prefix", ["./", "/", "//"])
def test_prefixes_of_unix_tools_are_taken_off(tmp_path: Path, prefix: str) -> None:
    assert_holds(packed(tmp_path / "a.zip", *(f"{prefix}{name}".encode() for name in FOLDER)), FOLDER)


def test_a_backslash_in_a_name_of_unix_is_one(tmp_path: Path) -> None:
    assert_holds(packed(tmp_path / "a.zip", b"a\\b.png"), ["a\\b.png"])


def test_the_unicode_path_is_preferred_if_it_is_meant_for_the_name(tmp_path: Path) -> None:
    def extra(raw: bytes) -> bytes:
        data = struct.pack("<BI", 1, zlib.crc32(raw)) + "für/größe.png".encode()
        return struct.pack("<HH", 0x7075, len(data)) + data

    raw = "für/größe.png".encode("latin-1")
    assert_holds(packed(tmp_path / "a.zip", raw, extra=extra(raw)), ["für/größe.png"])
    assert_holds(packed(tmp_path / "b.zip", b"other.png", extra=extra(raw)), ["other.png"])


def test_dos_names_are_read_and_a_guess_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert_holds(packed(tmp_path / "a.zip", "Grüße.png".encode("cp437"), system=0), ["Grüße.png"])
    assert "does not say how 1 of its names are encoded" in caplog.text
    caplog.clear()
    caplog.set_level(logging.WARNING)
    assert_holds(packed(tmp_path / "b.zip", b"plain.png"), ["plain.png"])
    assert not caplog.text


def test_a_member_is_found_by_the_name_that_earlier_versions_gave_it(tmp_path: Path) -> None:
    raw = "Äpfel.png".encode()
    source = packed(tmp_path / "a.zip", raw)
    assert source.read(raw.decode("cp437")) == CONTENT
    assert raw.decode("cp437") not in source


def test_names_flagged_as_utf8_that_are_not_are_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no readable zip archive"):
        packed(tmp_path / "a.zip", b"\xff.png", flag=True)
