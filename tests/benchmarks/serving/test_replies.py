"""Replies are read to their end, however they are cut in pieces."""

import pytest

from benchmarks.serving.replies import BadReply, ReplyReader
from tests.benchmarks.local_server import reply

CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n10;name=value\r\n" + b"\r\n0\r\n\r\n" + b"x" * 9 + b"\r\n0\r\nTrailer: yes\r\n\r\n"
)


@pytest.mark.parametrize(
    ("whole", "status"),
    [
        (reply(200, b"x" * 300), 200),
        (reply(503, b""), 503),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (CHUNKED, 201),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 64, 10_000])
def test_a_reply_ends_with_its_last_byte(whole: bytes, status: int, piece: int) -> None:
    reader = ReplyReader()
    for _ in range(2):  # and the next one begins behind it
        found = [reader.feed(whole[at : at + piece]) for at in range(0, len(whole), piece)]
        assert found[-1] == status
        assert set(found[:-1]) <= {None}


def test_a_server_may_close_the_connection_behind_a_reply() -> None:
    reader = ReplyReader()
    assert reader.feed(reply()) == 200
    assert reader.keep_alive
    assert reader.feed(reply(headers="Connection: close\r\n")) == 200
    assert not reader.keep_alive


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 is needed"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "neither content-length nor chunks"),
        (reply() + b"more", "4 bytes behind its content-length"),
    ],
)
def test_what_is_no_reply_is_refused(bad: bytes, why: str) -> None:
    with pytest.raises(BadReply, match=why):
        ReplyReader().feed(bad)
