"""Bodies of requests: read within bounds of size and of the memory of all of them together, and taken apart.

A small body may always come. Large ones share a room: one that finds no place waits some seconds for it, and is then
told to come again. So unfinished uploads cost neither memory nor others' requests.
"""

import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.gateway.room import Held, Room
from serving.protocol.messages import RequestError
from serving.protocol.parts import Part, check_count

MAX_BODY = 64 << 20  # bytes, also of what a compressed body holds
_STEP = 1 << 20  # what a body of unknown length takes at a time; one of no more than this is small
_SMALL, _LARGE = 64 << 20, 128 << 20

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Progress = Callable[[int], None]


class Bodies:
    """Reads the bodies of all requests of a process."""

    def __init__(self, *, small: int = _SMALL, large: int = _LARGE) -> None:
        self.small, self.large = Room(small), Room(large)

    async def read(self, headers: Mapping[str, str], receive: Receive, held: Held, *, progress: Progress) -> bytes:
        """The body without its content encoding; `progress` is told how many bytes have come.

        What it takes is added to `held`. Raises `RequestError`: 413 if it is too large, 415 for another encoding than
        gzip, 400 if it can't be unpacked, 503 if there is no room for it.
        """
        unpack = _unpacker(headers.get("content-encoding", ""))
        length = headers.get("content-length")
        if length is not None and int(length) > MAX_BODY:
            raise _too_large(int(length))
        if length is not None and unpack is None:
            await self._take(int(length), held)
            return await _of_known_length(receive, progress)
        return await self._of_unknown_length(receive, progress, held, unpack)

    async def _take(self, count: int, held: Held) -> None:
        await held.take(self.small if count <= _STEP else self.large, count)

    async def _of_unknown_length(
        self, receive: Receive, progress: Progress, held: Held, unpack: "_Gzip | None"
    ) -> bytes:
        content, taken, came, more = bytearray(), 0, 0, True
        while more:
            message = await receive()
            _check_there(message)
            more = message.get("more_body", False)
            chunk = message.get("body", b"")
            came += len(chunk)
            progress(came)
            for piece in [chunk] if unpack is None else unpack.pieces(chunk, last=not more):
                if len(content) + len(piece) > MAX_BODY:
                    raise _too_large(len(content) + len(piece))
                while taken < len(content) + len(piece):
                    await held.take(self.small if taken == 0 else self.large, _STEP)
                    taken += _STEP
                content += piece
        return bytes(content)


async def _of_known_length(receive: Receive, progress: Progress) -> bytes:
    message = await receive()
    _check_there(message)
    first: bytes = message.get("body", b"")
    progress(len(first))
    if not message.get("more_body", False):
        return first
    content = bytearray(first)
    while message.get("more_body", False):
        message = await receive()
        _check_there(message)
        content += message.get("body", b"")
        progress(len(content))
    return bytes(content)


def _check_there(message: Mapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise ConnectionResetError("the client went away while it sent the body")


class _Gzip:
    """Unpacks gzip a bounded piece at a time, so that a bomb is noticed when it is a megabyte large."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(wbits=31)

    def pieces(self, chunk: bytes, *, last: bool) -> "Any":
        """What a chunk unpacks to."""
        try:
            while chunk:
                yield self._unpack.decompress(chunk, _STEP)
                chunk = self._unpack.unconsumed_tail
        except zlib.error as error:
            raise RequestError(f"the body is not the gzip that its Content-Encoding says: {error}") from error
        if last and not self._unpack.eof:
            raise RequestError("the body's gzip ends too early")


def _unpacker(encoding: str) -> _Gzip | None:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip"):
        return _Gzip()
    raise RequestError(f"Content-Encoding is {encoding!r:.80}; it may be gzip or absent", 415)


def _too_large(size: int) -> RequestError:
    return RequestError(f"the body has {size} bytes or more; at most {MAX_BODY}", 413)


def multipart_boundary(content_type: str | None) -> bytes | None:
    """The boundary of a form of parts; None for any other type. Raises `RequestError` where it is missing."""
    if content_type is None or not content_type.lstrip()[:10].lower().startswith("multipart/"):
        return None
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise RequestError(f"Content-Type is {content_type!r:.80}, without a boundary")
    return boundary


def parts_of(content: bytes, boundary: bytes) -> list[Part]:
    """The parts of a form in their order; names may repeat. Raises `RequestError` for one that was cut off."""
    reader = _Parts()
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        parser.write(content)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(f"the multipart body can't be read: {error}") from error
    if not reader.ended:
        raise RequestError("the multipart body was cut off: its last boundary is missing")
    return reader.parts


class _Parts:
    """Collects what the parser tells."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._content: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        check_count(len(self.parts) + 1)
        self._headers, self._content = {}, []

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        kind = self._headers.get(b"content-type")
        media_type = kind.decode("latin-1") if kind is not None else None
        if media_type is None and b"filename" in options:
            media_type = "application/octet-stream"
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.parts.append(Part(name, b"".join(self._content), media_type))

    def _all(self) -> None:
        self.ended = True


def is_form(content_type: str) -> bool:
    """Whether the type is that of a plain form, which curl also gives to whatever it sends by --data-binary."""
    return content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"
