"""What stands around the pixels of a file: the orientation, wherever the format lets it stand, and a file without it.

Cameras, editors and transfers damage metadata more often than pixels. So decoders get a file that holds only what
pixels need, and the orientation is read here, from EXIF (JPEG, PNG, WebP, TIFF, JPEG 2000) or else from XMP. Other
formats keep theirs in structures that their decoders read.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

_ORIENTATION: Final = 274
_XMP_TAG: Final = 700
_XMP_ORIENTATION: Final = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
_TEXT_BYTES: Final = 1 << 20  # of a compressed text that may hold metadata
_XMP_IN_JPEG: Final = b"http://ns.adobe.com/xap/1.0/\x00"
_EXIF_BOX, _XMP_BOX = b"uuidJpgTiffExif->JP2", b"uuid" + bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_CODING_STYLE: Final = b"\xff\x52\x00"
_WEBP_PIXELS: Final = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_METADATA_FLAGS: Final = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP
_PNG_PIXELS: Final = {b"IHDR", b"PLTE", b"IDAT"}
_PNG_END: Final = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# size, depth, compression and layout; strips, tiles, palette, JPEG, YCbCr and sample formats
_TIFF_PIXELS: Final = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 338, 339, 347),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}


@dataclass(frozen=True)
class Parts:
    """A file that holds only what its pixels need, and the metadata that may hold the orientation."""

    pixels: bytes
    exif: bytes = b""
    xmp: bytes = b""

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8; 1 if there is none, or it is damaged."""
        found = _orientation_of(self.exif)
        if found is None:
            match = _XMP_ORIENTATION.search(self.xmp)
            found = int(match[1]) if match else 1
        return found


def parts_of(data: bytes, form: str) -> Parts:
    """Take a file of the format `form` apart; one that can't be comes back whole, for its decoder to judge."""
    take_apart = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff, "JPEG2000": _jpeg_2000}.get(form)
    try:
        return Parts(data) if take_apart is None else take_apart(data)
    except (struct.error, IndexError, OverflowError):  # the file ends in the middle of something
        return Parts(data)


def _jpeg(data: bytes) -> Parts:
    """Drop APPn and comments before the first scan, but JFIF and Adobe, which tell the colours."""
    kept, exif, xmp, at = [data[:2]], b"", b"", 2
    while (at := data.find(b"\xff", at)) >= 0 and (marker := data[at + 1]) != 0xDA:
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD9:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
        body = data[at + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\x00"):
            exif += body[6:]
        elif marker == 0xE1 and body.startswith(_XMP_IN_JPEG):
            xmp = xmp or body
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE) or _tells_colours(marker, body):
            kept.append(data[at:end])
        at = end
    if at < 0:
        return Parts(data, exif, xmp)
    return Parts(b"".join([*kept, data[at:]]), exif, xmp)


def _tells_colours(marker: int, body: bytes) -> bool:
    return (marker == 0xE0 and body.startswith(b"JFIF\x00") and len(body) >= 14) or (
        marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12
    )


def _png(data: bytes) -> Parts:
    """Keep the critical chunks, and transparency if it is undamaged; a missing end is added."""
    parts, kept = Parts(data), [data[:8]]
    for kind, chunk in _png_chunks(data):
        body = chunk[8:-4]
        if kind in _PNG_PIXELS or (kind == b"tRNS" and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            kept.append(chunk)
        elif kind == b"eXIf":
            parts = replace(parts, exif=body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            parts = _with_text(parts, kind, body)
    whole = len(kept[-1]) == int.from_bytes(kept[-1][:4]) + 12
    return replace(parts, pixels=b"".join([*kept, _PNG_END] if whole else kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each chunk; where a length of metadata is wrong, it goes on with the next image data."""
    at = 8
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data) and kind not in _PNG_PIXELS:
            following = data.find(b"IDAT", at + 8)
            if following < 0:
                return
            at = following - 4
            continue
        yield kind, data[at:end]
        at = end


def _with_text(parts: Parts, kind: bytes, body: bytes) -> Parts:
    """Add what a text chunk of PNG holds, if that is EXIF (as ImageMagick writes it) or XMP."""
    name, _, text = body.partition(b"\x00")
    if name == b"XML:com.adobe.xmp" and kind == b"iTXt":
        packed, rest = text[:1] == b"\x01", text[2:].split(b"\x00", 2)
        return replace(parts, xmp=_inflated(rest[-1]) if packed else rest[-1])
    if name in (b"Raw profile type exif", b"Raw profile type APP1") and kind in (b"zTXt", b"tEXt"):
        lines = (_inflated(text[1:]) if kind == b"zTXt" else text).split(b"\n")[3:]
        try:
            profile = bytes.fromhex(b"".join(lines).decode("ascii"))
        except ValueError:
            return parts
        return replace(parts, exif=parts.exif or profile)
    return parts


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _TEXT_BYTES)
    except zlib.error:
        return b""


def _webp(data: bytes) -> Parts:
    kept, exif, xmp, at = [], b"", b"", 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + (length & 1)
        chunk = data[at:end]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_FLAGS]) + chunk[9:]
        if kind in _WEBP_PIXELS:
            kept.append(chunk)
        elif kind == b"EXIF":
            exif = chunk[8:]
        elif kind == b"XMP ":
            xmp = chunk[8:]
        at = end
    body = b"WEBP" + b"".join(kept)
    return Parts(b"RIFF" + len(body).to_bytes(4, "little") + body, exif, xmp)


def _tiff(data: bytes) -> Parts:
    """Keep the entries of the first page that describe pixels; no further page is read."""
    entries = list(_entries(data))
    order, wide, start = _layout(data)
    kept = b"".join(data[at : at + (20 if wide else 12)] for tag, at in entries if tag in _TIFF_PIXELS)
    count = len(kept) // (20 if wide else 12)
    table = struct.pack(f"{order}{'Q' if wide else 'H'}", count) + kept + bytes(8 if wide else 4)
    xmp = b""
    for tag, at in entries:
        if tag == _XMP_TAG:
            size, place = struct.unpack_from(f"{order}{'QQ' if wide else 'II'}", data, at + 4)
            xmp = data[place : place + size]
    return Parts(data[:start] + table + data[start + len(table) :], data, xmp)


def _jpeg_2000(data: bytes) -> Parts:
    exif, xmp = data.find(_EXIF_BOX), data.find(_XMP_BOX)
    return Parts(
        data,
        data[exif + len(_EXIF_BOX) :] if exif >= 0 else b"",
        data[xmp + len(_XMP_BOX) :][:_TEXT_BYTES] if xmp >= 0 else b"",
    )


def resolutions(jpeg_2000: bytes) -> int:
    """How many times the sides of a JPEG 2000 can be halved in decoding: the levels of its wavelets."""
    at = jpeg_2000.find(_CODING_STYLE)
    return jpeg_2000[at + 9] if 0 <= at < len(jpeg_2000) - 9 else 0


def _orientation_of(exif: bytes) -> int | None:
    while exif.startswith(b"Exif\x00"):
        exif = exif[6:]
    try:
        for tag, at in _entries(exif):
            if tag == _ORIENTATION:
                order, wide, _ = _layout(exif)
                kind = struct.unpack_from(f"{order}H", exif, at + 2)[0]
                code = {1: "B", 3: "H", 4: "I"}[kind]
                value = struct.unpack_from(f"{order}{code}", exif, at + (12 if wide else 8))[0]
                return value if 1 <= value <= 8 else None
    except (struct.error, KeyError, OverflowError):  # damaged metadata rotates nothing
        pass
    return None


def _layout(tiff: bytes) -> tuple[str, bool, int]:
    """The byte order of a TIFF structure, whether its offsets have 64 bits, and where its first directory is."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        raise struct.error("no TIFF structure")
    wide = struct.unpack_from(f"{order}H", tiff, 2)[0] == 43
    start: int = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", tiff, 8 if wide else 4)[0]
    return order, wide, start


def _entries(tiff: bytes) -> Iterator[tuple[int, int]]:
    """Tag and place of each entry in the first directory of a TIFF structure."""
    order, wide, start = _layout(tiff)
    count = struct.unpack_from(f"{order}{'Q' if wide else 'H'}", tiff, start)[0]
    first, length = start + (8 if wide else 2), 20 if wide else 12
    for at in range(first, min(first + count * length, len(tiff) - length + 1), length):
        yield struct.unpack_from(f"{order}H", tiff, at)[0], at
