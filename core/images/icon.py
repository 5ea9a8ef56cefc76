"""Windows icons: several pictures in one file, each a PNG or a bitmap whose own header says how large it really is."""

import struct
from typing import Final

_DIRECTORY: Final = struct.Struct("<HHH")
_ENTRY: Final = struct.Struct("<BBBBHHII")
_BITMAP: Final = struct.Struct("<Iii")
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def picture_in(icon: bytes) -> bytes:
    """The largest picture of an icon, and of those the deepest: its PNG, or an icon that holds nothing else.

    An icon that can't be taken apart comes back as it is.
    """
    count = _DIRECTORY.unpack_from(icon)[2] if len(icon) >= _DIRECTORY.size else 0
    places = range(_DIRECTORY.size, _DIRECTORY.size + count * _ENTRY.size, _ENTRY.size)
    entries = [_ENTRY.unpack_from(icon, at) for at in places if at + _ENTRY.size <= len(icon)]
    if not entries:
        return icon
    best = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[5]))
    picture = icon[best[7] : best[7] + best[6]]
    if picture.startswith(_PNG):
        return picture
    return _DIRECTORY.pack(0, 1, 1) + _ENTRY.pack(*best[:7], _DIRECTORY.size + _ENTRY.size) + picture


def bitmap_size(icon: bytes) -> tuple[int, int]:
    """Width and height of the bitmap in an icon of `picture_in`; (0, 0) if there is none."""
    start = _DIRECTORY.size + _ENTRY.size
    if len(icon) < start + _BITMAP.size:
        return 0, 0
    _, width, height = _BITMAP.unpack_from(icon, start)
    return abs(width), abs(height) // 2  # the height counts the mask, too
