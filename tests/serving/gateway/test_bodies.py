"""Bodies: what is taken apart, what is refused, and how much memory they may have together."""

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from serving.gateway.bodies import MAX_BODY, Bodies, multipart_boundary, parts_of
from serving.gateway.room import Held, Room
from serving.protocol.messages import RequestError
from serving.protocol.parts import Part

FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\nAAA\r\n'
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="b"\r\n\r\nB\r\nB\r\n'
    b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n5\r\n--x--\r\n'
)


def test_parts_keep_order_names_and_types() -> None:
    assert parts_of(FORM, b"x") == [
        Part("image", b"AAA", "image/jpeg"),
        Part("image", b"B\r\nB", "application/octet-stream"),
        Part("k", b"5", None),
    ]


@pytest.mark.parametrize("end", range(1, len(FORM) - 2, 7))
def test_a_form_that_was_cut_off_is_refused(end: int) -> None:
    with pytest.raises(RequestError, match=r"cut off|can't be read"):
        parts_of(FORM[:end], b"x")


def test_a_form_of_too_many_parts_is_refused_early() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    with pytest.raises(RequestError, match="at most 256") as refused:
        parts_of(part * 100_000 + b"--x--\r\n", b"x")
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        (None, None),
        ("image/jpeg", None),
        ("multipart/form-data; boundary=abc", b"abc"),
        ('MULTIPART/form-data; Boundary="a b"', b"a b"),
    ],
)
def test_boundaries(kind: str | None, boundary: bytes | None) -> None:
    assert multipart_boundary(kind) == boundary


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(RequestError, match="without a boundary"):
        multipart_boundary("multipart/form-data")


def receiving(chunks: Sequence[bytes]) -> Callable[[], Awaitable[Any]]:
    left = [*chunks]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


def read(headers: dict[str, str], chunks: Sequence[bytes], bodies: Bodies | None = None) -> bytes:
    async def work() -> bytes:
        held = Held()
        reader = bodies or Bodies()
        try:
            return await reader.read(headers, receiving(chunks), held, progress=lambda came: None)
        finally:
            held.release()
            assert (reader.small.free, reader.large.free) == (reader.small.size, reader.large.size)

    return asyncio.run(work())


def test_bodies_of_known_and_unknown_length() -> None:
    assert read({"content-length": "6"}, [b"abc", b"def"]) == b"abcdef"
    assert read({}, [b"abc", b"", b"def"]) == b"abcdef"
    large = bytes(3 << 20)
    assert read({}, [large, large]) == large + large


@pytest.mark.parametrize("cut", [1, 7, 100])
def test_gzip(cut: int) -> None:
    content = b"".join(b"%d" % number for number in range(2000))
    packed = gzip.compress(content)
    chunks = [packed[at : at + cut] for at in range(0, len(packed), cut)]
    assert read({"content-encoding": "gzip", "content-length": str(len(packed))}, chunks) == content


def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join([*(packer.compress(zeros) for _ in range((MAX_BODY >> 20) + 8)), packer.flush()])


@pytest.mark.parametrize(
    ("headers", "content", "status", "message"),
    [
        ({"content-length": str(MAX_BODY + 1)}, b"", 413, "at most"),
        ({"content-encoding": "br"}, b"x", 415, "may be gzip"),
        ({"content-encoding": "gzip"}, b"no gzip", 400, "is not the gzip"),
        ({"content-encoding": "gzip"}, gzip.compress(b"x" * 99)[:-9], 400, "ends too early"),
        ({"content-encoding": "gzip"}, bomb(), 413, "at most"),
    ],
)
def test_what_is_refused(headers: dict[str, str], content: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        read(headers, [content])
    assert refused.value.status == status


def test_who_finds_no_room_waits_for_it_or_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        room = Room(10)
        await room.take(8)
        second = asyncio.create_task(room.take(5))
        third = asyncio.create_task(room.take(1))
        await asyncio.sleep(0)
        assert not second.done()
        assert not third.done(), "it came later, though it would fit"
        room.give(8)
        await asyncio.gather(second, third)
        assert room.free == 4
        monkeypatch.setattr("serving.gateway.room._WAIT_SECONDS", 0.01)
        with pytest.raises(RequestError, match="too many large requests") as refused:
            await room.take(5)
        assert (refused.value.status, refused.value.retry_after) == (503, 5)
        room.give(6)
        await room.take(10)

    asyncio.run(work())


def test_who_stops_waiting_takes_nothing() -> None:
    async def work() -> None:
        room = Room(10)
        await room.take(10)
        gone = asyncio.create_task(room.take(5))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        room.give(10)
        assert room.free == 10

    asyncio.run(work())
