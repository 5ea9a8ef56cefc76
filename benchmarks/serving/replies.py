"""HTTP/1.1 replies, read with as little work as can be: the status, and where the reply ends.

Bodies are counted, not kept. What no server of a benchmark sends (1xx, upgrades, a body that ends with its connection)
is refused; pipelining is not supported.
"""

_NO_BODY = (204, 304)
_LINE = 64  # bytes looked at for the end of a line


class BadReply(ValueError):
    """Bytes that are no reply as this reader knows them."""


class ReplyReader:
    """Fed what arrives on one connection, it gives the status of each reply once the whole of it is there."""

    def __init__(self) -> None:
        self.keep_alive = True
        self._begin()

    def feed(self, data: bytes) -> int | None:
        """The status if this completes a reply, else None; raises `BadReply`."""
        if self._status == 0:
            data = self._read_head(data)
            if self._status == 0:
                return None
        if not self._body.feed(data):
            return None
        status = self._status
        self._begin()
        return status

    def _begin(self) -> None:
        self._head = b""
        self._status = 0
        self._body: _Length | _Chunks = _Length(0)

    def _read_head(self, data: bytes) -> bytes:
        """Take the head, if it is whole; returns what is behind it."""
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return b""
        if not head.startswith(b"HTTP/1."):
            raise BadReply(f"a reply begins with {head[:20]!r}; HTTP/1.1 is needed")
        lines = head.lower().split(b"\r\n")
        fields = dict(line.split(b":", 1) for line in lines[1:] if b":" in line)
        self._status = int(head[9:12])
        self._body = _body(self._status, fields)
        self.keep_alive = fields.get(b"connection", b"").strip() != b"close"
        return rest


class _Length:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> bool:
        self._left -= len(data)
        if self._left < 0:
            raise BadReply(f"a reply goes on for {-self._left} bytes behind its content-length")
        return self._left == 0


class _Chunks:
    """A body in chunks: a line with the length in base 16, that many bytes, an empty line; the last has length 0."""

    def __init__(self) -> None:
        self._skip = 0
        self._line = b""
        self._last = False

    def feed(self, data: bytes) -> bool:
        at = min(self._skip, len(data))
        self._skip -= at
        while at < len(data):
            line, end, _ = data[at : at + _LINE].partition(b"\n")
            self._line += line
            at += len(line) + len(end)
            if end and self._ends(self._line.strip()):
                return True
            step = min(self._skip, len(data) - at)
            self._skip -= step
            at += step
        return False

    def _ends(self, line: bytes) -> bool:
        """Take one whole line; True for the empty one behind the last chunk."""
        self._line = b""
        if self._last:
            return line == b""
        size = int(line.split(b";")[0], 16)
        self._last = size == 0
        self._skip = size + 2 if size else 0
        return False


def _body(status: int, fields: dict[bytes, bytes]) -> _Length | _Chunks:
    if status in _NO_BODY:
        return _Length(0)
    if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
        return _Chunks()
    if b"content-length" in fields:
        return _Length(int(fields[b"content-length"]))
    raise BadReply(f"a reply of status {status} has neither content-length nor chunks")
