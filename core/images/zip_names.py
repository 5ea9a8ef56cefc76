"""The names of a zip's members as the folder had them that was packed, whatever tool packed it.

Tools disagree on encodings and separators. A name is read, in this order, as its "UTF-8" flag says, from the Unicode
path of Info-ZIP and WinRAR (extra field 0x7075), as UTF-8 that nobody flagged (macOS and many libraries), and as code
page 437, which the format prescribes. Archives made on Windows may have backslashes, drives and `.\\` in them.
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
from struct import unpack_from

_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_WINDOWS = frozenset({0, 10, 11, 14})  # where archives are made: FAT, NTFS (two numbers), VFAT
_DRIVE = re.compile("[A-Za-z]:")


def name_of(info: zipfile.ZipInfo) -> str:
    """The posix path of a member inside the folder; it ends with a slash for a folder, and is empty for the top."""
    name = _decoded(info).partition("\0")[0]
    if info.create_system in _WINDOWS:
        name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts and info.create_system in _WINDOWS and _DRIVE.fullmatch(parts[0]):
        parts = parts[1:]
    return "/".join(parts) + ("/" if parts and name.endswith("/") else "")


def is_guessed(info: zipfile.ZipInfo) -> bool:
    """Whether nothing says how a name is encoded, and it is not UTF-8."""
    raw = _raw(info)
    return raw is not None and not raw.isascii() and _unicode_path(info, raw) is None and _as_utf8(raw) is None


def _decoded(info: zipfile.ZipInfo) -> str:
    raw = _raw(info)
    if raw is None:
        return info.orig_filename
    return _unicode_path(info, raw) or _as_utf8(raw) or info.orig_filename


def _raw(info: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name that `zipfile` took for code page 437; None if the flag said UTF-8."""
    return None if info.flag_bits & _UTF8_FLAG else info.orig_filename.encode("cp437")


def _unicode_path(info: zipfile.ZipInfo, raw: bytes) -> str | None:
    """The name in the extra field, if it is there and meant for this one."""
    for kind, data in _extra_fields(info.extra):
        if kind == _UNICODE_PATH and len(data) > 5 and unpack_from("<BI", data) == (1, zlib.crc32(raw)):
            return _as_utf8(data[5:])
    return None


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    while len(extra) >= 4:
        kind, length = unpack_from("<HH", extra)
        yield kind, extra[4 : 4 + length]
        extra = extra[4 + length :]


def _as_utf8(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
